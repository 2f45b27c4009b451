"""The images of a repository: what each is made of, and how a container engine builds, proves and pushes it.

An environment is a folder in containers/ that holds requirements.lock; containers/Dockerfile builds the image of any,
with the build arguments ENVIRONMENT, BASE_IMAGE, VERSION, REVISION and SOURCE. The base image is the Dockerfile's own,
or, where a folder has a file `base`, the one that it names. An image's tag is a hash of all that it is made of, so that
it is built once, wherever; PROJECT/NAME:VERSION, its name in specs, is a second tag here.

Where the Dockerfile has a stage `dependencies`, this is an image of its own, beside the other one and tagged likewise:
a machine that has never built takes these layers from a registry.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
import tomllib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from penstock.compile import rewrites
from penstock.compile.errors import PenstockError

FOLDER = "containers"
DIGESTS = "digests.json"

_FORMAT = "penstock.digests/1"
_LOCK = "requirements.lock"
_BASE = "base"
_SMOKE = "smoke.yaml"
_DEPENDENCIES = "dependencies"
_SILENCE = 900.0  # seconds without news of a build; a step may install for minutes and say nothing
_STALLED = 120.0  # seconds without news of a push
_BUILDING = 1800.0  # seconds that another build of the same environment is waited for
_QUICK = 60.0  # seconds for the engine's answer to anything else
_DEFAULT_BASE = re.compile(r"^\s*ARG\s+BASE_IMAGE=(\S+)", re.MULTILINE)
_STAGE = re.compile(
    rf"^FROM\s[^\n]*\sAS\s+{_DEPENDENCIES}\s*$.*?(?=^FROM\s|\Z)", re.MULTILINE | re.DOTALL | re.IGNORECASE
)
_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """An environment of a repository.

    Attributes:
        name: Of its folder.
        context: The repository.
        project: Name of the project in pyproject.toml.
        version: Of the project.
        others: Names of the repository's other environments.
    """

    name: str
    context: Path
    project: str
    version: str
    others: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.context / FOLDER / self.name

    @property
    def repository(self) -> str:
        """Name of its image without tag, as specs have it."""
        return f"{self.project}/{self.name}"

    @property
    def image(self) -> str:
        """Name of its image in specs."""
        return f"{self.repository}:{self.version}"

    @property
    def base_file(self) -> Path:
        return self.folder / _BASE

    @property
    def base(self) -> str:
        """Base image that its folder names, for it cannot start from another; "" where it starts from the Dockerfile's.

        Raises:
            PenstockError: The file says something else than the name of an image.
        """
        if not self.base_file.is_file():
            return ""
        words = self.base_file.read_text().split()
        if len(words) != 1:
            raise PenstockError(f"{self.base_file}: holds {len(words)} words; write the name of one image in it")
        return words[0]

    @cached_property
    def files(self) -> tuple[str, ...]:
        """What it is made of: the files that .dockerignore leaves, without other environments and byte-code; sorted."""
        from docker.utils.build import exclude_paths

        ignore = self.context / ".dockerignore"
        lines = [line.strip() for line in ignore.read_text().splitlines()] if ignore.is_file() else []
        patterns = [line for line in lines if line and not line.startswith("#")]
        # Byte-code comes and goes as the code is used.
        patterns += ["**/__pycache__", f"{FOLDER}/{DIGESTS}", ".git", *(f"{FOLDER}/{other}" for other in self.others)]
        found = exclude_paths(str(self.context), patterns, dockerfile=f"{FOLDER}/Dockerfile")
        return tuple(sorted(name for name in found if not _is_folder(self.context / name)))

    @cached_property
    def inputs(self) -> str:
        """SHA-256 of these files: names, content, and whether they can be executed.

        Raises:
            PenstockError: One cannot be read.
        """
        return _hashed([self.name, self.version, *self._seen(self.files)])

    @cached_property
    def inputs_of_dependencies(self) -> str:
        """SHA-256 of the Dockerfile to the end of its stage `dependencies` and of files named there; "" without one.

        An input that it misses costs time, no more: an engine takes from a cache only what it would have made.

        Raises:
            PenstockError: A file cannot be read.
        """
        file = self.context / FOLDER / "Dockerfile"
        text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
        if not (stage := _STAGE.search(text)):
            return ""
        recipe = text[: stage.end()].replace("${ENVIRONMENT}", self.name).split()
        return _hashed([recipe, *self._seen(name for name in self.files if _is_named(name, recipe))])

    def tag(self, base: str) -> str:
        """Return the tag of its image made from a base image, given by its id."""
        return _hashed([self.inputs, base])[:16]

    def tag_of_dependencies(self, base: str) -> str:
        """Return the tag of the image of its dependencies; "" where the Dockerfile does not tell them apart."""
        inputs = self.inputs_of_dependencies
        return f"{_DEPENDENCIES}-{_hashed([inputs, base])[:16]}" if inputs else ""

    def _seen(self, names: Iterable[str]) -> list[list[str]]:
        try:
            return [_seen(self.context / name, name) for name in names]
        except OSError as error:
            raise PenstockError(f"{error.filename}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Image:
    """An image that is on this machine.

    Attributes:
        name: REPOSITORY:TAG, where the tag is the hash of what it is made of.
        size: Bytes, uncompressed.
        dependencies: REPOSITORY:TAG of the image of its dependencies, which need not be here; "" where it has none.
        seconds: How long it took to build; None where it was here, or was fetched.
    """

    environment: Environment
    id: str
    name: str
    size: int
    dependencies: str
    seconds: float | None


def repository(start: Path) -> Path:
    """Return the folder, this one or the next above, that holds containers/Dockerfile.

    Raises:
        PenstockError: There is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / FOLDER / "Dockerfile").is_file():
            return folder
    raise PenstockError(
        f"{start.resolve()}: neither here nor above is a {FOLDER}/Dockerfile; go to the repository, or give --context"
    )


def environments(context: Path, names: Sequence[str] = ()) -> list[Environment]:
    """Return the environments of a repository, by name; all, where none are named.

    Raises:
        PenstockError: One has no folder or no lock, or pyproject.toml does not say the project's name and version.
    """
    known = sorted(file.parent.name for file in (context / FOLDER).glob(f"*/{_LOCK}"))
    for name in names:
        if name not in known:
            unlocked = (context / FOLDER / name).is_dir()
            problem = f"{FOLDER}/{name} has no {_LOCK}" if unlocked else f"there is no environment {name}"
            raise PenstockError(f"{problem}; {context / FOLDER} has {', '.join(known) or 'none with a lock'}")
    if not known:
        raise PenstockError(f"{context / FOLDER}: no folder in it has a {_LOCK}")
    try:
        project = tomllib.loads((context / "pyproject.toml").read_text())["project"]
        title, version = project["name"], project["version"]
    except (OSError, KeyError, ValueError) as error:
        raise PenstockError(f"{context}/pyproject.toml: project.name and project.version are needed: {error}") from None
    folders = sorted(path.name for path in (context / FOLDER).iterdir() if path.is_dir())
    return [
        Environment(name, context, title, version, tuple(other for other in folders if other != name))
        for name in dict.fromkeys(names or known)
    ]


class Engine:
    """The container engine of this machine; a context manager.

    Args:
        tell: Told, in one line, what goes on.
        base: Base image of environments that name none of their own; empty: the one that containers/Dockerfile names.
        verbose: Whether it is told all that builds say.
    """

    def __init__(self, tell: Tell, base: str = "", verbose: bool = False) -> None:
        self._tell, self._base, self._verbose = tell, base, verbose

    def __enter__(self) -> Engine:
        """Connect.

        Raises:
            PenstockError: No engine answers.
        """
        from penstock.compile import container_engine

        if reason := container_engine.available():
            raise PenstockError(f"{reason}; start Docker")
        self._client = self._connect(_QUICK)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def build(self, environment: Environment, registry: str = "") -> Image:
        """Return the image of an environment: the one that is here, else the registry's, else a new one.

        For a new one, dependencies that have not changed are those that are here, else the registry's.

        Raises:
            PenstockError: It cannot be built.
        """
        base = self._base_id(environment)
        name = f"{environment.repository}:{environment.tag(base)}"
        seconds = None
        if self._inspect(name) is None:
            with self._alone(environment):
                if self._inspect(name) is None and not self._fetch(environment, name, registry):
                    began = time.monotonic()
                    self._build(environment, name, self._dependencies(environment, base), registry)
                    seconds = round(time.monotonic() - began, 1)
        return self._found(environment, name, base, seconds)

    def existing(self, environment: Environment, registry: str = "") -> Image:
        """Return the image of an environment as it is now.

        Raises:
            PenstockError: It is neither here nor at the registry.
        """
        base = self._base_id(environment)
        name = f"{environment.repository}:{environment.tag(base)}"
        if self._inspect(name) is None and not self._fetch(environment, name, registry):
            where = f"neither here nor at {registry}" if registry else "not here"
            raise PenstockError(f"{name} is {where}; build it with `penstock images build {environment.name}`")
        return self._found(environment, name, base, None)

    def push(self, image: Image, registry: str) -> str:
        """Push an image and, where they are here, its dependencies; return the digest of the image, "sha256:…".

        Raises:
            PenstockError: The registry refuses it, or does not answer.
        """
        repository = _at(registry, image.environment)
        if image.dependencies and self._inspect(image.dependencies):
            self._push(image.dependencies, repository)
        return self._push(image.name, repository)

    def _push(self, name: str, repository: str) -> str:
        tag, digest = name.rpartition(":")[2], ""
        with self._patient(
            f"{repository}: cannot be pushed", "log in with `docker login`, or check --registry", _STALLED
        ) as client:
            client.tag(name, repository, tag)
            for event in _heard(client.push(repository, tag=tag, stream=True, decode=True)):
                _raise_error(event)
                digest = (event.get("aux") or {}).get("Digest", digest)
        if not digest:
            raise PenstockError(f"{repository}: the registry answered no digest; push it again")
        return digest

    def _found(self, environment: Environment, name: str, base: str, seconds: float | None) -> Image:
        found = self._inspect(name)
        if found is None:
            raise PenstockError(f"{name} was removed while it was made; build it again")
        with _refusals(f"{environment.image}: cannot be named"):
            self._client.tag(found["Id"], environment.repository, environment.version)
        return Image(environment, found["Id"], name, found["Size"], self._dependencies(environment, base), seconds)

    def _dependencies(self, environment: Environment, base: str) -> str:
        tag = environment.tag_of_dependencies(base)
        return f"{environment.repository}:{tag}" if tag else ""

    def _base_id(self, environment: Environment) -> str:
        base = self._base_of(environment)
        if (found := self._inspect(base)) is None:
            if problem := self._pull(base):
                remedy = f"name another in {environment.base_file}" if environment.base else "give --base-image"
                raise PenstockError(f"base image {base} is neither here nor can be fetched: {problem}; {remedy}")
            found = self._inspect(base)
        assert found is not None
        return str(found["Id"])

    def _base_of(self, environment: Environment) -> str:
        if own := environment.base:
            return own
        if self._base:
            return self._base
        file = environment.context / FOLDER / "Dockerfile"
        if match := _DEFAULT_BASE.search(file.read_text()):
            return match[1]
        raise PenstockError(f"{file}: there is no `ARG BASE_IMAGE=…` that says which image to start from")

    @contextlib.contextmanager
    def _alone(self, environment: Environment) -> Iterator[None]:
        """Wait for another command that builds the same; what it leaves need not be built twice."""
        lock, end = os.open(environment.folder, os.O_RDONLY), time.monotonic() + _BUILDING
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise PenstockError(
                            f"{environment.folder}: another build has been at work for {_BUILDING:g} s; end it"
                        ) from None
                    time.sleep(0.2)
            yield
        finally:
            os.close(lock)

    def _build(self, environment: Environment, name: str, dependencies: str, registry: str) -> None:
        # Layers that were fetched the engine uses only when it is told to, and then none of what it has built itself:
        # what has this name here was built here.
        cache = ""
        if dependencies and self._inspect(dependencies) is None:
            cache = self._look(environment, dependencies, registry)
            if not cache:
                self._make(environment, dependencies, stage=_DEPENDENCIES)
        self._make(environment, name, cache)

    def _make(self, environment: Environment, name: str, cache: str = "", stage: str = "") -> None:
        """Build an image from what a stage, else the last one, makes; leave the log where that fails."""
        context = environment.context
        title = f"{environment.name}: {stage}" if stage else environment.name
        arguments = {
            "ENVIRONMENT": environment.name,
            "BASE_IMAGE": self._base_of(environment),
            "VERSION": environment.version,
            "REVISION": _git(context, "rev-parse", "HEAD"),
            "SOURCE": _source(context),
        }
        with (
            self._patient(f"{environment.name}: cannot be built", "", _SILENCE) as client,
            _archive(environment) as archive,
        ):
            handle, log = tempfile.mkstemp(prefix=f"penstock-{environment.name}-", suffix=".log")
            problem = ""
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    events = client.build(
                        fileobj=archive,
                        custom_context=True,
                        dockerfile=f"{FOLDER}/Dockerfile",
                        buildargs=arguments,
                        tag=name,
                        target=stage,
                        cache_from=[cache] if cache else None,
                        platform="linux/amd64",  # as the locks are
                        network_mode="host",  # packages come the way that they come to this machine
                        rm=True,
                        forcerm=True,
                        decode=True,
                        timeout=_SILENCE,
                    )
                    problem = self._follow(_heard(events), file, title)
                if problem:
                    raise _Refused(f"{problem}; its log is {log}")
            finally:
                if not problem:
                    Path(log).unlink(missing_ok=True)

    def _follow(self, events: Iterable[Mapping[str, Any]], log: IO[str], name: str) -> str:
        """Write what a build says to its log, tell how far it is, and return why it failed, or nothing."""
        step, last = "", ""
        for event in events:
            text = str(event.get("stream", ""))
            log.write(text)
            if match := _STEP.match(text):
                step, last = f"at step {match[1]} of {match[2]}", ""
                self._tell(f"{name}: {step.removeprefix('at ')}: {match[3].strip()}")
            elif text.strip() and not text.startswith((" --->", "Removing intermediate")):
                last = " ".join(text.strip().splitlines()[-1].split())
                if self._verbose:
                    self._tell(text.rstrip())
            if "error" in event:
                log.write(f"{event['error']}\n")
                return ": ".join(filter(None, (step, last, str(event["error"]))))
        return ""

    def _fetch(self, environment: Environment, name: str, registry: str) -> bool:
        if not (there := self._look(environment, name, registry)):
            return False
        with _refusals(f"{name}: cannot be named"):
            self._client.tag(there, environment.repository, name.rpartition(":")[2])
        return True

    def _look(self, environment: Environment, name: str, registry: str) -> str:
        """Fetch what a registry has for an image of this machine, and return its name there; "" if it has none."""
        if not registry:
            return ""
        there = f"{_at(registry, environment)}:{name.rpartition(':')[2]}"
        if problem := self._pull(there):
            self._tell(f"{environment.name}: cannot be had there: {problem}")
            return ""
        return there

    def _pull(self, name: str) -> str:
        """Fetch an image; return why it cannot be had, or nothing."""
        from penstock.compile import container_engine

        return container_engine.fetch(self._client, [name], self._tell).get(name, "")

    def _inspect(self, name: str) -> dict[str, Any] | None:
        from docker.errors import ImageNotFound

        with _refusals(name):
            try:
                found: dict[str, Any] = self._client.inspect_image(name)
                return found
            except ImageNotFound:
                return None

    @contextlib.contextmanager
    def _patient(self, what: str, remedy: str, silence: float) -> Iterator[Any]:
        """Yield a client for a call that takes long, but tells in less than `silence` seconds that it goes on."""
        with contextlib.closing(self._connect(silence)) as client, _refusals(what, remedy, silence):
            yield client

    def _connect(self, timeout: float) -> Any:
        import docker

        with _refusals("the container engine"):
            return docker.from_env(timeout=timeout).api


def smoke_test(environment: Environment) -> tuple[str, dict[str, Any]]:
    """Return what an environment's smoke.yaml says to run in its image: what `penstock run` takes, and parameters.

    Raises:
        PenstockError: There is no such file, or it says neither.
    """
    import yaml

    file = environment.folder / _SMOKE
    try:
        wanted = yaml.safe_load(file.read_text())
        what, parameters = str(wanted["run"]), dict(wanted.get("parameters") or {})
    except FileNotFoundError:
        raise PenstockError(f"{file} is not there; write `run: NAME` in it, and `parameters:`") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PenstockError(f"{file}: wants `run: NAME` and `parameters:`: {error}") from None
    is_file = what.endswith((".yaml", ".yml", ".json")) or ".py:" in what
    return str(environment.context / what) if is_file else what, parameters


def smoke(image: Image, spec: Mapping[str, Any], parameters: Mapping[str, Any], scratch: Path) -> float:
    """Run a spec in an image, without a network; return the seconds it took.

    Args:
        spec: PipelineSpec whose tasks all run in the image of this environment.
        scratch: Folder for what the run leaves.

    Raises:
        PenstockError: The run fails, or needs another image.
    """
    from penstock.compile.targets import local
    from penstock.compile.targets.local.record import State
    from penstock.compile.yaml_writer import to_yaml

    name, repository = spec["pipelineInfo"]["name"], image.environment.repository
    used = {rewrites.split(used)[0] for used in rewrites.images(spec)}
    if used != {repository}:
        raise PenstockError(
            f"{image.name}: {name} runs in {', '.join(sorted(used)) or 'no image'}, not in {repository}"
        )
    path = scratch / "spec.yaml"
    path.write_text(to_yaml(rewrites.replace_images(spec, lambda _: image.name)), encoding="utf-8")
    began = time.monotonic()
    record = local.run(
        path, dict(parameters), root=scratch, jobs=os.cpu_count() or 1, runner="docker", reuse=False, network="none"
    )
    if record.state is not State.SUCCEEDED:
        failed = [f"{task.path}: {task.error}" for task in record.tasks if task.error]
        raise PenstockError(f"{image.name}: {name} fails in it: {'; '.join(failed) or record.error}")
    return round(time.monotonic() - began, 1)


def write_digests(context: Path, registry: str, pushed: Mapping[Environment, tuple[str, str]]) -> Path:
    """Note what a registry returned in containers/digests.json, whole or not at all, and return that path.

    Args:
        pushed: Tag and digest by environment. What the file says of others of the same registry stays.
    """
    folder = context / FOLDER
    path = folder / DIGESTS
    lock = os.open(folder, os.O_RDONLY)  # two pushes at once keep each other's digests
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _read_digests(path) if path.is_file() else {}
        images = dict(before["images"]) if before.get("registry") == registry else {}
        for environment, (tag, digest) in pushed.items():
            images[environment.repository] = {"tag": tag, "digest": digest, "inputs": environment.inputs}
        _write(path, json.dumps({"format": _FORMAT, "registry": registry, "images": images}, indent=2, sort_keys=True))
    except OSError as error:
        raise PenstockError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        os.close(lock)
    return path


def swapping(pairs: Collection[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the rewrite that puts other images in the place of some, as NAME=OTHER says.

    Raises:
        PenstockError: A pair is none. The rewrite raises it for a spec that has no image NAME.
    """
    others = dict(pair.split("=", 1) for pair in pairs if re.fullmatch("[^=@]+=[^=]+", pair))
    if len(others) < len(pairs):
        raise PenstockError(f"--image {', '.join(pairs)}: give each image once, as NAME=OTHER: tabular=tensorflow")

    def swap(spec: dict[str, Any]) -> dict[str, Any]:
        try:
            return rewrites.swap_images(spec, others)
        except KeyError as error:
            name, there = error.args[0], ", ".join(rewrites.images(spec)) or "none"
            raise PenstockError(f"--image {name}=…: no step runs in such an image; they run in {there}") from None

    return swap


def pinning(
    registry: str, file: Path | None, allow_mutable: bool, by_tag: Collection[str] = ()
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the rewrite that names a spec's images at a registry by digest.

    Args:
        file: What `write_digests` wrote; the repository's own where none is given.
        allow_mutable: Whether images without a digest may stay as they are; the repository's own go by their tag.
        by_tag: Images of others, without their tag, that may stay as they are.

    Raises:
        PenstockError: There is no such file, or it is another registry's. The rewrite raises it for images that were
            built from other files than are here, and for those without a digest.
    """
    context = _context_of(file)
    path = file or (context / FOLDER / DIGESTS if context else None)
    if path is None or not path.is_file():
        if file or not allow_mutable:
            where = f"{path}: is not there" if path else f"there is no {FOLDER}/{DIGESTS} here"
            raise PenstockError(
                f"{where}; write it with `penstock images push --registry {registry}`, or give --digests"
            )
        noted: dict[str, Any] = {"registry": registry, "images": {}}
    else:
        noted = _read_digests(path)
    if noted["registry"].rstrip("/") != registry.rstrip("/"):
        raise PenstockError(f"{path} is of registry {noted['registry']}, not {registry}; push to that one first")
    own = {environment.repository: environment for environment in environments(context)} if context else {}
    if noted["images"] and not own:
        warnings.warn(f"{path}: the sources that its images were built from are not here to compare", stacklevel=2)

    def pin(spec: dict[str, Any]) -> dict[str, Any]:
        used = {rewrites.split(image)[0] for image in rewrites.mutable_images(spec)}
        for name in sorted(used & set(noted["images"]) & set(own)):
            built, now = noted["images"][name]["inputs"], own[name].inputs
            if built != now:
                raise PenstockError(
                    f"{path}: {name} was built from other files ({built[:12]}) than are here ({now[:12]}): lock, "
                    "Dockerfile or code have changed; run `penstock images build` and `penstock images push`"
                )
        digests = {name: entry["digest"] for name, entry in noted["images"].items()}
        pinned = rewrites.pin_images(spec, digests, registry, own if allow_mutable else ())
        mutable = [image for image in rewrites.mutable_images(pinned) if rewrites.split(image)[0] not in by_tag]
        if mutable and not allow_mutable:
            raise PenstockError(
                f"{', '.join(mutable)}: such a tag can be another image tomorrow; name images by digest, push your own "
                "with `penstock images push`, or give --by-tag IMAGE for one, --allow-mutable-tags for all"
            )
        return pinned

    return pin


class _Refused(Exception):
    """What the engine or a registry said, in one line."""


def _heard(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what the engine tells, until it ends, or breaks off with an error of a library below docker's."""
    try:
        yield from events
    except Exception as error:
        raise _Refused(" ".join(str(error).split())) from error


def _raise_error(event: Mapping[str, Any]) -> None:
    if "error" in event:
        raise _Refused(" ".join(str(event["error"]).split()))


@contextlib.contextmanager
def _refusals(what: str, remedy: str = "", patience: float = _QUICK) -> Iterator[None]:
    """Turn what the engine or a registry refuses into one line."""
    from docker.errors import APIError, DockerException

    try:
        yield
    except (_Refused, DockerException, OSError) as error:
        said = error.explanation if isinstance(error, APIError) else None
        text = str(said or error) or type(error).__name__
        if "timed out" in text.lower():
            text = f"no news for {patience:g} s"
        if "no space left" in text.lower():
            remedy = "free some of the disk that holds the engine's images, for example with `docker image prune`"
        raise PenstockError(": ".join(filter(None, (what, text))) + (f"; {remedy}" if remedy else "")) from error


@contextlib.contextmanager
def _archive(environment: Environment) -> Iterator[IO[bytes]]:
    """Yield the files that an image is made of as a tar archive that says nothing of their owner or age."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in environment.files:
                member = archive.gettarinfo(str(environment.context / name), name)
                member.mtime = member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o755 if member.mode & 0o100 else 0o644
                if member.isreg():
                    with (environment.context / name).open("rb") as content:
                        archive.addfile(member, content)
                else:
                    archive.addfile(member)
        file.seek(0)
        yield file


def _seen(path: Path, name: str) -> list[str]:
    if path.is_symlink():
        return [name, "link", os.readlink(path)]
    kind = "program" if path.stat().st_mode & 0o100 else "file"
    return [name, kind, hashlib.sha256(path.read_bytes()).hexdigest()]


def _is_named(file: str, words: Iterable[str]) -> bool:
    """Return whether a file, or a folder that it is in, is named by words, which may be patterns."""
    paths = [file, *(str(folder) for folder in PurePosixPath(file).parents)][:-1]
    return any(fnmatch(path, word) for path in paths for word in words)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _hashed(value: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(value)).encode()).hexdigest()


def _at(registry: str, environment: Environment) -> str:
    return f"{registry.rstrip('/')}/{environment.name}"


def _context_of(file: Path | None) -> Path | None:
    start = file.resolve().parent if file else Path.cwd()
    for each in (start, Path.cwd()):
        with contextlib.suppress(PenstockError):
            return repository(each)
    return None


def _read_digests(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise ValueError(f"its format is {found['format']!r}, not {_FORMAT!r}")
        for entry in found["images"].values():
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", entry["digest"]) or not isinstance(entry["inputs"], str):
                raise ValueError(f"{entry['digest']!r} is no digest")
        str(found["registry"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PenstockError(f"{path}: is not what `penstock images push` writes: {error}") from error
    return dict(found)


def _write(path: Path, text: str) -> None:
    handle, half = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(handle)
        os.chmod(half, 0o644)
        os.replace(half, path)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise


def _git(context: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(context), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _source(context: Path) -> str:
    """Return where the repository comes from, without a user or a password."""
    parts = urlsplit(_git(context, "remote", "get-url", "origin"))
    if parts.scheme not in ("https", "http", "ssh", "git") or not parts.hostname:
        return ""
    return f"https://{parts.hostname}{parts.path.removesuffix('.git')}"
