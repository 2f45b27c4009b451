"""Carries out one task of a run: takes over what it gave before, or runs it in its folder."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from penstock.compile import commands, graph, launcher, local_paths
from penstock.compile.targets.local import convert, fetch, kubernetes, placement, reuse, volumes
from penstock.compile.targets.local.containers import Containers
from penstock.compile.targets.local.environments import Environments
from penstock.compile.targets.local.fingerprint import fingerprint
from penstock.compile.targets.local.journal import now
from penstock.compile.targets.local.objects import Objects
from penstock.compile.targets.local.placement import Place
from penstock.compile.targets.local.schedule import Done, Work
from penstock.compile.targets.local.setting import Mount, Setting
from penstock.compile.targets.local.task_config import task_config

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # logs grow while tasks run
WORKSPACE = "workspace"  # folder that the tasks of a run share, in the run's


@dataclass(frozen=True)
class Execution:
    """Runs tasks, any number at once.

    Attributes:
        folder: The run's folder.
        env: Environment of processes.
        runner: What commands run in: one of placement.RUNNERS.
        process: Runs commands in processes.
        containers: Runs commands in containers; None where no task needs one.
        environments: Has the packages that tasks install when they start.
        objects: Secrets and ConfigMaps.
        volumes: Folder of all volumes.
        store: Keeps what tasks gave.
        reusing: Whether what tasks of other runs gave is taken over.
        resuming: Whether the run was at work before.
        here: Folder that relative paths of importers start from.
        stop: Ends everything.
        remove: Removes a folder, now or later.
    """

    folder: Path
    env: Mapping[str, str]
    runner: str
    process: launcher.Runner
    containers: Containers | None
    environments: Environments
    objects: Objects
    volumes: Path
    store: reuse.Store
    reusing: bool
    resuming: bool
    here: Path
    stop: launcher.Stop
    remove: Callable[[Path], object]

    def __call__(self, work: Work) -> Done:
        """Return what came of a task.

        Raises:
            TaskError: it failed.
            Stopped: it was ended.
        """
        job, source = self._job(work), f"{self.folder.name}/{work.path}"
        given = self.store.given(work.task, job.parameters, work.artifacts)
        if self.resuming and (before := self.store.resumed(job.folder, given, job.task)):
            if before.source != source:
                return Done(before.outputs, reused=before.source)
            return Done(before.outputs, job.runner, started=before.started, seconds=before.seconds)
        places = kubernetes.Places(self.volumes, job.folder / "scratch")
        with kubernetes.given(work.task, work.value, self.objects, places, work.names) as setting:
            return self._carry_out(dataclasses.replace(job, setting=setting), given, source)

    def _job(self, work: Work) -> _Job:
        place = placement.place(work.task, self.runner)
        body = work.task.component.body
        task = convert.task(work.task, installs=place is Place.CONTAINER)
        if isinstance(body, graph.Importer):
            uri, metadata = convert.import_source(work.task, body, work.parameters, work.names)
            if convert.is_remote(uri):
                task = fetch.import_task(work.task, uri, metadata, sys.executable)
        parameters = launcher.bind(task, work.parameters)
        fill = _filler(parameters, work.names)
        for name, port in work.task.component.inputs.parameters.items():
            if port.type is graph.Type.TASK_CONFIG:
                parameters[name] = task_config(work.task, fill)
        image = fill(body.image) if isinstance(body, graph.Container) else ""
        folder = self.folder / "tasks" / convert.folder_name(work.path)
        return _Job(work, folder, Setting(), place, task, parameters, image)

    def _carry_out(self, job: _Job, given: str, source: str) -> Done:
        key = self._key(job) if job.reusable else None
        if self.reusing and key and (found := self.store.found(key, job.folder, given, job.task)):
            return Done(found.outputs, reused=found.source)
        reuse.forget(job.folder)
        started, begin = now(), time.monotonic()
        outputs = self._run(job)
        seconds = round(time.monotonic() - begin, 3)
        self.store.keep(job.folder, outputs, source=source, given=given, key=key, started=started, seconds=seconds)
        return Done(outputs, job.runner, started=started, seconds=seconds)

    def _key(self, job: _Job) -> str | None:
        code = self._code
        if job.place is Place.CONTAINER:
            assert self.containers is not None
            code = self.containers.identity(job.image, job.setting.always_pull)
        task, artifacts = job.work.task, job.work.artifacts
        return self.store.key(task, job.parameters, artifacts, names=job.names_used, code=code, here=self.here)

    @cached_property
    def _code(self) -> str:
        return fingerprint()

    def _run(self, job: _Job) -> launcher.Outputs:
        work = job.work
        if job.place is Place.NONE:
            return launcher.Outputs(volumes.carry_out(work.task, job.parameters, self.volumes, work.names))
        if isinstance(work.task.component.body, graph.Importer):
            return self._import(job, work.task.component.body)
        return self._launch(job)

    def _import(self, job: _Job, body: graph.Importer) -> launcher.Outputs:
        uri, metadata = convert.import_source(job.work.task, body, job.parameters, job.work.names)
        if convert.is_remote(uri):
            found = dict(self._launch(job).artifacts)
        else:
            found = convert.imported(job.work.task, body, uri, metadata, self.here)
        if body.download_to_workspace:
            found = {name: self._in_workspace(job, artifact, uri) for name, artifact in found.items()}
        return launcher.Outputs({}, found)

    def _in_workspace(self, job: _Job, artifact: launcher.Artifact, uri: str) -> launcher.Artifact:
        folder = self.folder / WORKSPACE / ".artifacts" / job.folder.name
        name = uri.partition("?")[0].rstrip("/").rpartition("/")[2]
        target = folder / (name or "artifact")
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            copy: Any = shutil.copytree if Path(artifact.uri).is_dir() else shutil.copy2
            copy(artifact.uri, target)
        except OSError as error:
            raise launcher.TaskError(f"{job.task.name}: cannot be copied into the workspace: {error}") from error
        return dataclasses.replace(artifact, uri=str(target))

    def _launch(self, job: _Job) -> launcher.Outputs:
        work, in_container = job.work, job.place is Place.CONTAINER
        return launcher.run(
            job.task,
            job.parameters,
            work.artifacts,
            job.folder,
            names=work.names,
            env=self._env_in_container(job) if in_container else self.env,
            stop=self.stop,
            runner=self._in_container(job) if in_container else self._in_process(job),
            own_tmpdir=not in_container,
            remove=self.remove,
            again=work.again,
        )

    def _in_process(self, job: _Job) -> launcher.Runner:
        body = job.work.task.component.body
        installs = commands.start_installs(body.command) if isinstance(body, graph.Container) else ()
        return kubernetes.runner(job.setting, self.environments.runner(installs) if installs else self.process)

    def _env_in_container(self, job: _Job) -> dict[str, str]:
        return {"PENSTOCK_IMAGE": job.image, "PENSTOCK_CWD": str(self.here), **UNBUFFERED}

    def _in_container(self, job: _Job) -> launcher.Runner:
        assert self.containers is not None
        workspace = self.folder / WORKSPACE
        # A path among the parameters means the same in a container as in a process.
        named = [path for path in local_paths.named(job.parameters, self.here) if not path.is_relative_to(self.folder)]
        mounts = [Mount(str(path), path, read_only=True) for path in named]
        if workspace.is_dir():
            mounts.append(Mount(str(workspace), workspace))
        for items in job.work.artifacts.values():
            for item in items:
                if "://" not in item.uri and not Path(item.uri).is_relative_to(self.folder):
                    mounts.append(Mount(item.uri, Path(item.uri), read_only=True))
        setting = dataclasses.replace(job.setting, mounts=(*job.setting.mounts, *mounts))
        return kubernetes.runner(setting, self.containers.runner(job.image, setting=setting), links=False)


@dataclass(frozen=True)
class _Job:
    """A task with all that is known of it when it starts."""

    work: Work
    folder: Path
    setting: Setting
    place: Place
    task: launcher.Task
    parameters: Mapping[str, Any]
    image: str

    @property
    def runner(self) -> str | None:
        """What runs its command; None: there is none."""
        return None if self.place is Place.NONE else self.place.value

    @property
    def reusable(self) -> bool:
        """Whether the spec lets it be reused, all that it is given is in its key, and something would be left of it.

        One without outputs is there for what it does, one that hears how others ended for what it does about that, and
        an importer for what lies elsewhere now.
        """
        task = self.work.task
        hears = any(isinstance(given.source, graph.FinalStatus) for given in task.inputs.values())
        gives = any(True for _ in task.component.outputs)
        is_import = isinstance(task.component.body, graph.Importer)
        outside = is_import or self.setting.env or self.setting.mounts or self.place is Place.NONE
        return task.caching.enabled and gives and not hears and not outside

    @property
    def names_used(self) -> dict[str, str]:
        """The system placeholders of its command, with their values."""
        body = self.work.task.component.body
        texts = [*body.command, *body.args, *body.env.values()] if isinstance(body, graph.Container) else []
        used = {steps[0] for text in texts for steps in launcher.placeholders(text) if len(steps) == 1}
        return {name: value for name, value in self.work.names.items() if name in used}


def _filler(parameters: Mapping[str, Any], names: Mapping[str, str]) -> Callable[[str], str]:
    given = {"inputs": {"parameterValues": parameters}}
    return lambda text: launcher.fill_text(text, given, names)
