"""Platform documents, compiled by the library that Kubeflow's users have, mean here what they can."""

import contextlib
import os
import stat
import traceback
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st
from kfp import dsl, kubernetes
from kfp.kubernetes import kubernetes_executor_config_pb2

from penstock.compile import from_kfp, graph, kubernetes_document, launcher
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import convert
from penstock.compile.targets.local import kubernetes as documents
from penstock.compile.targets.local.objects import Objects
from penstock.compile.targets.local.setting import Setting

CANARY = "hunter2-canary"
OBJECTS = Objects(
    {"db": {"user": b"me", "password": CANARY.encode()}, "raw": {"key": b"\xff"}, "nul": {"key": b"\0"}},
    {"conf": {"level": b"debug"}},
)
NAMES = {
    "pipeline_job_name": "Run_1",
    "pipeline_job_uuid": "job-uuid",
    "pipeline_task_uuid": "0123456789",
    "pipeline_task_name": "work",
}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def work(x: str = "") -> str:
    return x


@dsl.container_component
def shell(script: str):
    return dsl.ContainerSpec(image="debian:12", command=["sh", "-ec"], args=[script])


@pytest.fixture
def pipeline(compiled):
    """Return a pipeline of one task that a function gives settings to."""

    def make(*set_up) -> graph.Pipeline:
        @dsl.pipeline(name="one")
        def one(name: str = "db", optional: str = None, claim: str = "data"):  # noqa: RUF013 as kfp wants it
            task = work()
            for call in set_up:
                call(task, {"name": name, "optional": optional, "claim": claim})

        return from_kfp.read(compiled(one))

    return make


@pytest.fixture
def edited(pipeline):
    """Return a pipeline of one task with a document of one's own."""

    def make(document: object, pipeline_config: object = None) -> graph.Pipeline:
        platform = {"deploymentSpec": {"executors": {"exec-work": document}}}
        if pipeline_config is not None:
            platform["pipelineConfig"] = pipeline_config

        @dsl.pipeline(name="one")
        def one():
            work()

        text = yaml.safe_dump(compiler_text(one)) + "---\n" + yaml.safe_dump({"platforms": {"kubernetes": platform}})
        return from_kfp.parse(text)

    def compiler_text(what) -> dict:
        return json_format.MessageToDict(what.pipeline_spec)

    return make


@pytest.fixture
def places(tmp_path) -> documents.Places:
    return documents.Places(tmp_path / "volumes", tmp_path / "scratch")


@contextlib.contextmanager
def given(pipeline, places, values=None, objects=OBJECTS, task="work"):
    def value(source):
        return {"name": "db", "claim": "data", **(values or {})}.get(getattr(source, "name", None))

    with documents.given(pipeline.dag.tasks[task], value, objects, places, NAMES) as setting:
        yield setting


def check(pipeline, places, objects=OBJECTS) -> list[str]:
    return documents.check(pipeline, objects, places.volumes)


# The table


def flattened(shape, prefix="") -> set[str]:
    if isinstance(shape, list):
        return flattened(shape[0], prefix)
    if not isinstance(shape, dict) or "*" in shape:
        return {f"{prefix}: {'map' if isinstance(shape, dict) else shape.__name__}"}
    return set().union(*(flattened(inner, f"{prefix}.{name}") for name, inner in shape.items()))


def described(message, prefix="") -> set[str]:
    kinds = {"STRING": "str", "BOOL": "bool", "INT32": "int", "INT64": "int", "DOUBLE": "float"}
    if message.full_name in ("google.protobuf.Value", "google.protobuf.Struct"):
        return {f"{prefix}: object"}
    found = set()
    for field in message.fields:
        name = f"{prefix}.{field.json_name}"
        if field.message_type and field.message_type.GetOptions().map_entry:
            found.add(f"{name}: map")
        elif field.message_type:
            found |= described(field.message_type, name)
        else:
            found.add(f"{name}: {next(kinds[k] for k in kinds if getattr(field, f'TYPE_{k}') == field.type)}")
    return found


def test_the_table_knows_every_field_of_kfps_messages_and_its_type():
    known = flattened(kubernetes_document.TASK)
    ours = described(kubernetes_executor_config_pb2.KubernetesExecutorConfig.DESCRIPTOR)
    assert ours <= known
    newer = {line.split(".")[1] for line in known - ours}  # than the release that tests compile with
    assert newer <= {"enabledSharedMemory", "initContainers", "podResourceClaims"}


def test_the_table_knows_every_field_of_the_pipelines_message():
    shape = {**kubernetes_document.PIPELINE, "deploymentSpec": {"executors": {"*": object}}}
    assert flattened(shape) == described(from_kfp.messages().SinglePlatformSpec.DESCRIPTOR)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"sidecars": []}, "unknown field kubernetes.sidecars; this version of penstock does not know it"),
        ({"pvcMount": [{"mount_path": "/x"}]}, "unknown field kubernetes.pvcMount.mount_path"),
        ({"pvcMount": {}}, "kubernetes.pvcMount is not a list"),
        ({"nodeSelector": "ssd"}, "kubernetes.nodeSelector is not an object"),
        ({"activeDeadlineSeconds": "soon"}, "kubernetes.activeDeadlineSeconds is not an integer"),
        ({"imagePullPolicy": True}, "kubernetes.imagePullPolicy is not text"),
        ({"securityContext": {"runAsNonRoot": "yes"}}, "kubernetes.securityContext.runAsNonRoot is not true or false"),
        ({"podMetadata": {"labels": {"a": 1}}}, "kubernetes.podMetadata.labels.a is not text"),
        ({"imagePullPolicy": "Often"}, "imagePullPolicy: 'Often' is none of Always, IfNotPresent, Never"),
        ({"fieldPathAsEnv": [{"name": "X", "fieldPath": "metadata.labels"}]}, "X: pods have no 'metadata.labels' for"),
        ({"fieldPathAsEnv": [{"name": "A=B", "fieldPath": "metadata.name"}]}, "'A=B' cannot be the name of an"),
        ({"emptyDirMounts": [{"mountPath": "data"}]}, "emptyDirMounts: 'data' is no path to mount at"),
        ({"emptyDirMounts": [{"mountPath": "/a/../etc"}]}, "'/a/../etc' is no path to mount at"),
        ({"emptyDirMounts": [{"mountPath": "/"}]}, "'/' is no path to mount at"),
        ({"emptyDirMounts": [{"mountPath": "/a"}, {"mountPath": "/a/"}]}, "something else is mounted at /a as well"),
        ({"initContainers": [{"name": "x"}]}, "initContainers: what they prepare or serve would be missing"),
        ({"secretAsEnv": [{}]}, "secretAsEnv: an entry has no name"),
        ({"secretAsEnv": [{"secretNameParameter": {"componentInputParameter": "x"}}]}, "its name comes from x, which"),
        (
            {"pvcMount": [{"mountPath": "/a", "taskOutputParameter": {"producerTask": "other"}}]},
            "pvcMount: its name comes from other., which is not around it",
        ),
        (
            {"secretAsEnv": [{"secretNameParameter": {"taskFinalStatus": {"producerTask": "x"}}}]},
            "secretAsEnv: the end of a task is not a name",
        ),
        (
            {"secretAsEnv": [{"secretNameParameter": {"runtimeValue": {"constant": 3}}}]},
            "secretAsEnv: a name is not text",
        ),
    ],
)
def test_what_a_document_must_not_hold_is_found_before_anything_runs(edited, places, document, problem):
    (found,) = check(edited(document), places)
    assert found.startswith("task work: ")
    assert problem in found


def test_a_pipelines_settings_are_held_to_their_types(edited, places):
    assert check(edited({}, {"resourceTtlOnSuccess": 5}), places) == []
    with pytest.raises(PenstockError, match="semaphoreKey"):
        edited({}, {"semaphoreKey": "x"})


def test_a_pipelines_deadline_is_known(compiled, edited):
    config = dsl.PipelineConfig(active_deadline_seconds=90)

    @dsl.pipeline(name="timed", pipeline_config=config)
    def timed():
        work()

    assert documents.deadline(from_kfp.read(compiled(timed))) == 90.0
    assert documents.deadline(edited({})) is None


# What has no effect


def test_what_has_no_effect_is_warned_of_with_its_tasks(compiled):
    @dsl.pipeline(
        name="scheduled", pipeline_config=dsl.PipelineConfig(ttl_seconds_after_finished=60, active_deadline_seconds=9)
    )
    def scheduled(claims: dict = {}):  # noqa: B006 kfp copies it into the spec
        for _ in range(2):
            task = work()
            kubernetes.add_node_selector(task, "disk", "ssd")
            kubernetes.add_toleration(task, key="gpu", operator="Exists", toleration_seconds=10)
            kubernetes.add_toleration_json(task, claims)
            kubernetes.add_node_affinity(task, match_expressions=[{"key": "a", "operator": "Exists", "values": []}])
        kubernetes.set_security_context(task, run_as_user=1000, run_as_non_root=True)
        kubernetes.set_image_pull_secrets(task, ["login"])
        kubernetes.set_image_pull_policy(task, "Never")
        kubernetes.empty_dir_mount(task, "huge", "/huge", medium="HugePages")

    found = from_kfp.read(compiled(scheduled))
    common = [
        "tasks work, work-2: nodeSelector: there is one node, this machine",
        "tasks work, work-2: nodeAffinity: there is one node, this machine",
        "tasks work, work-2: tolerations: this machine has no taints",
        "task work-2: emptyDirMounts: the medium HugePages is a folder on disk here",
        "the pipeline: resourceTtlOnCompletion: a run stays until you remove it",
    ]
    assert sorted(documents.warnings(found)) == sorted(
        [*common, "task work-2: securityContext: a process runs as the user who you are"]
    )
    assert sorted(documents.warnings(found, {"work-2"})) == sorted(
        [
            *common,
            "task work-2: securityContext: runAsNonRoot is not checked",
            "task work-2: imagePullSecret: images are fetched with Docker's own logins",
            "task work-2: imagePullPolicy: an image that is not here is fetched all the same",
        ]
    )


def test_what_is_newer_than_the_library_is_warned_of_too(edited):
    found = edited(
        {
            "podAffinity": [{"topologyKey": "zone", "anti": True}],
            "podResourceClaims": [{"resourceClaimTemplateName": "gpu"}],
            "enabledSharedMemory": {"size": "64Mi"},
        }
    )
    assert sorted(documents.warnings(found)) == [
        "task work: enabledSharedMemory: processes share the /dev/shm of this machine",
        "task work: podAffinity: there is one node, this machine",
        "task work: podResourceClaims: no device is claimed; the task sees those of this machine",
    ]


def test_what_is_honoured_is_not_warned_of(pipeline):
    found = pipeline(
        lambda task, _: kubernetes.use_secret_as_env(task, "db", {"user": "USER"}),
        lambda task, _: kubernetes.empty_dir_mount(task, "x", "/x"),
        lambda task, _: kubernetes.add_ephemeral_volume(task, "y", "/y", ["ReadWriteOnce"], "1Gi", labels={"a": "b"}),
        lambda task, _: kubernetes.add_pod_label(task, "a", "b"),
        lambda task, _: kubernetes.set_timeout(task, 60),
        lambda task, _: kubernetes.set_image_pull_policy(task, "Always"),
    )
    assert documents.warnings(found) == []


# Secrets and ConfigMaps


def test_variables_come_from_secrets_and_config_maps(pipeline, places):
    found = pipeline(
        lambda task, _: kubernetes.use_secret_as_env(task, "db", {"user": "DB_USER", "password": "DB_PASSWORD"}),
        lambda task, _: kubernetes.use_secret_as_env(task, "db", {"none": "NONE"}, optional=True),
        lambda task, _: kubernetes.use_secret_as_env(task, "missing", {"none": "NONE"}, optional=True),
        lambda task, _: kubernetes.use_config_map_as_env(task, "conf", {"level": "LEVEL"}),
    )
    assert check(found, places) == []
    with given(found, places) as setting:
        assert setting.env == {"DB_USER": "me", "DB_PASSWORD": CANARY, "LEVEL": "debug"}
        assert CANARY not in repr(setting)


def test_a_name_may_be_an_input_of_the_pipeline_and_an_optional_one_may_be_missing(pipeline, places):
    found = pipeline(
        lambda task, inputs: kubernetes.use_secret_as_env(task, inputs["name"], {"user": "DB_USER"}),
        lambda task, inputs: kubernetes.use_secret_as_env(task, inputs["optional"], {"user": "OTHER"}),
        lambda task, inputs: kubernetes.use_config_map_as_volume(task, inputs["optional"], "/conf"),
    )
    assert documents.references(found.dag.tasks["work"]) == [
        graph.Input(graph.ScopeInput(name)) for name in ("name", "optional", "optional")
    ]
    assert check(found, places) == []
    with given(found, places) as setting:
        assert setting == Setting({"DB_USER": "me"})
    for value, message in (("other", "there is no Secret other; give a file"), ([], "name of its Secret is not text")):
        with (
            pytest.raises(launcher.TaskError, match=f"^work: .*{message}"),
            given(found, places, {"name": value}),
        ):
            pass


@pytest.mark.parametrize(
    ("set_up", "problem"),
    [
        (
            lambda task, _: kubernetes.use_secret_as_env(task, "other", {"a": "A"}),
            "task work: secretAsEnv: there is no Secret other; give a file with its manifest as "
            "--kubernetes-objects FILE",
        ),
        (
            lambda task, _: kubernetes.use_secret_as_volume(task, "other", "/etc/other"),
            "task work: secretAsVolume: there is no Secret other; give a file with its manifest as "
            "--kubernetes-objects FILE",
        ),
        (
            lambda task, _: kubernetes.use_config_map_as_env(task, "db", {"a": "A"}),
            "task work: configMapAsEnv: there is no ConfigMap db; give a file with its manifest as "
            "--kubernetes-objects FILE",
        ),
        (
            lambda task, _: kubernetes.use_secret_as_env(task, "db", {"pass": "A"}),
            "task work: secretAsEnv: Secret db has no key pass; it has password, user; add it to the file of "
            "--kubernetes-objects",
        ),
        (
            lambda task, _: kubernetes.use_secret_as_env(task, "raw", {"key": "A"}),
            "task work: secretAsEnv: Secret raw: the value of key is not text, which A needs",
        ),
        (
            lambda task, _: kubernetes.use_secret_as_env(task, "nul", {"key": "A"}),
            "task work: secretAsEnv: Secret nul: the value of key is not text, which A needs",
        ),
    ],
)
def test_a_missing_object_or_key_is_found_before_anything_runs_and_when_a_task_starts(
    pipeline, places, set_up, problem
):
    found = pipeline(set_up)
    assert check(found, places) == [problem]
    with pytest.raises(launcher.TaskError) as caught, given(found, places):
        pass
    assert str(caught.value) == "work: " + problem.split(": ", 2)[2]
    assert caught.value.exit_code is None


def test_files_of_a_secret_are_private_and_gone_when_the_task_ends(pipeline, places):
    found = pipeline(
        lambda task, _: kubernetes.use_secret_as_volume(task, "db", "/etc/db/"),
        lambda task, _: kubernetes.use_secret_as_volume(task, "other", "/etc/none", optional=True),
        lambda task, _: kubernetes.use_config_map_as_volume(task, "conf", "/etc/conf"),
    )
    assert check(found, places) == []
    with given(found, places) as setting:
        db, none, conf = setting.mounts
        assert [mount.path for mount in setting.mounts] == ["/etc/db", "/etc/none", "/etc/conf"]
        assert all(mount.read_only for mount in setting.mounts)
        assert {file.name: file.read_bytes() for file in db.source.iterdir()} == OBJECTS.secrets["db"]
        assert list(none.source.iterdir()) == []
        assert (conf.source / "level").read_text() == "debug"
        assert stat.S_IMODE(db.source.parent.stat().st_mode) == 0o700
        assert not db.source.is_relative_to(places.scratch.parent)
    assert not db.source.parent.exists()


def test_files_that_a_killed_engine_left_are_removed_and_those_at_work_are_not(pipeline, places, monkeypatch):
    found = pipeline(lambda task, _: kubernetes.use_secret_as_volume(task, "db", "/etc/db"))
    monkeypatch.setattr(documents, "_PRIVATE", f"penstock-test-{os.getpid()}-")
    left = (documents.MEMORY if documents.MEMORY.is_dir() else Path("/tmp")) / f"{documents._PRIVATE}left"
    left.mkdir(0o700)
    (left / "password").write_text(CANARY)
    with given(found, places) as first:
        assert left.exists()  # another engine may just have made it
        working = first.mounts[0].source.parent
        for folder in (left, working):
            os.utime(folder, (0, 0))
        with given(found, documents.Places(places.volumes, places.scratch / "2")):
            assert not left.exists()
            assert working.exists()


# Volumes and folders


def test_a_claim_is_a_folder_that_has_to_be_there(pipeline, places):
    found = pipeline(
        lambda task, _: kubernetes.mount_pvc(task, "data", "/data"),
        lambda task, inputs: kubernetes.mount_pvc(task, inputs["claim"], "/part", sub_path="a/b"),
    )
    (problem,) = check(found, places)
    assert problem.startswith("task work: pvcMount: there is no volume data; make the folder ")
    with pytest.raises(launcher.TaskError, match=r"^work: there is no volume data"), given(found, places):
        pass
    (places.volumes / "data").mkdir(parents=True)
    assert check(found, places) == []
    with given(found, places) as setting:
        assert [(mount.path, mount.source) for mount in setting.mounts] == [
            ("/data", places.volumes / "data"), ("/part", places.volumes / "data" / "a" / "b"),
        ]  # fmt: skip
    assert (places.volumes / "data" / "a" / "b").is_dir()
    with (
        pytest.raises(launcher.TaskError, match=r"^work: '\.\./x' cannot name a volume"),
        given(found, places, {"claim": "../x"}),
    ):
        pass
    with (
        pytest.raises(launcher.TaskError, match=r"^work: the name of its volume has no value"),
        given(found, places, {"claim": None}),
    ):
        pass


def test_a_claim_that_the_pipeline_creates_need_not_be_there(compiled, places):
    @dsl.pipeline(name="claims")
    def claims():
        made = kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name="data")
        kubernetes.mount_pvc(work(), "data", "/data").after(made)
        kubernetes.mount_pvc(work(), "other", "/data").after(made)

    (problem,) = check(from_kfp.read(compiled(claims)), places)
    assert "task work-2: pvcMount: there is no volume other" in problem


def test_a_mount_that_no_process_can_have_is_found_before_anything_runs(pipeline, places, tmp_path):
    there, link = tmp_path / "there", tmp_path / "link"
    there.mkdir()
    (places.volumes / "data").mkdir(parents=True)
    link.symlink_to(places.volumes / "data")
    found = pipeline(
        lambda task, _: kubernetes.empty_dir_mount(task, "a", str(there)),
        lambda task, _: kubernetes.empty_dir_mount(task, "b", str(tmp_path / "new" / "b")),
        lambda task, _: kubernetes.mount_pvc(task, "data", str(link)),
        lambda task, _: kubernetes.mount_pvc(task, "data", str(places.volumes / "data")),
    )
    assert check(found, places) == []
    assert documents.check(found, OBJECTS, places.volumes, {"work"}) == []
    assert documents.check(found, OBJECTS, places.volumes, set()) == [
        f"task work: emptyDirMounts: {there} cannot be mounted for a process: something else is there; use "
        "--runner docker"
    ]


def test_an_empty_folder_is_a_tasks_own_and_open_to_every_user_of_a_container(pipeline, places):
    found = pipeline(
        lambda task, _: kubernetes.empty_dir_mount(task, "a", "/a", size_limit="1Gi"),
        lambda task, _: kubernetes.empty_dir_mount(task, "b", "/b", medium="Memory"),
        lambda task, _: kubernetes.add_ephemeral_volume(task, "c", "/c", ["ReadWriteOnce"], "1Gi"),
    )
    places.scratch.mkdir()
    (places.scratch / "0").mkdir()  # of an engine that was killed
    with given(found, places) as setting:
        sources = {mount.path: mount.source for mount in setting.mounts}
        assert all(mount.fresh and not mount.read_only for mount in setting.mounts)
        assert sources["/a"].parent == sources["/c"].parent == places.scratch
        assert sources["/b"].is_relative_to(documents.MEMORY) or not documents.MEMORY.is_dir()
        for source in sources.values():
            assert list(source.iterdir()) == []
            assert stat.S_IMODE(source.stat().st_mode) == 0o777
            assert stat.S_IMODE(source.parent.stat().st_mode) == 0o700
    assert not any(source.exists() for source in (places.scratch, *sources.values()))


# The pod


def test_fields_of_the_pod_have_values(pipeline, places):
    paths = {
        "LABEL": "metadata.labels['team']",
        "NOTE": "metadata.annotations['a.b/c']",
        "NONE": "metadata.labels['none']",
        "RUN": "metadata.labels['pipeline/runid']",
        "NAME": "metadata.name",
        "NAMESPACE": "metadata.namespace",
        "UID_": "metadata.uid",
        "NODE": "spec.nodeName",
        "IP": "status.podIP",
    }
    found = pipeline(
        lambda task, _: kubernetes.add_pod_label(task, "team", "red"),
        lambda task, _: kubernetes.add_pod_annotation(task, "a.b/c", "text"),
        *(
            lambda task, _, name=name, path=path: kubernetes.use_field_path_as_env(task, name, path)
            for name, path in paths.items()
        ),
    )
    assert check(found, places) == []
    with given(found, places) as setting:
        node = setting.env["NODE"]
        assert setting.env == {
            "LABEL": "red", "NOTE": "text", "NONE": "", "RUN": "job-uuid", "NAME": "run-1-01234567",
            "NAMESPACE": "default", "UID_": "0123456789", "NODE": node, "IP": "127.0.0.1",
        }  # fmt: skip
        assert node


def test_time_user_and_image_policy_reach_the_setting(pipeline, edited, places):
    found = pipeline(
        lambda task, _: kubernetes.set_timeout(task, 60),
        lambda task, _: kubernetes.set_security_context(task, run_as_user=1000, run_as_group=0),
        lambda task, _: kubernetes.set_image_pull_policy(task, "Always"),
    )
    with given(found, places) as setting:
        assert setting == Setting(timeout=60.0, user=1000, group=0, always_pull=True)
    with given(edited({"enabledSharedMemory": {"size": "64Mi"}}), places) as setting:
        assert setting == Setting(shared_memory="64Mi")
    with given(edited({"enabledSharedMemory": {"volumeName": "shm"}}), places) as setting:
        assert int(setting.shared_memory) > 1 << 20
    with given(edited({"activeDeadlineSeconds": "0"}), places) as setting:
        assert setting == Setting()


def test_older_documents_with_constant_names_mean_the_same(edited, places):
    (places.volumes / "data").mkdir(parents=True)
    found = edited(
        {
            "secretAsEnv": [{"secretName": "db", "keyToEnv": [{"secretKey": "user", "envVar": "A"}]}],
            "configMapAsEnv": [{"configMapName": "conf", "keyToEnv": [{"configMapKey": "level", "envVar": "B"}]}],
            "pvcMount": [{"constant": "data", "mountPath": "/data"}],
        }
    )
    assert check(found, places) == []
    with given(found, places) as setting:
        assert setting.env == {"A": "me", "B": "debug"}
        assert setting.mounts[0].source == places.volumes / "data"


def test_a_constant_may_hold_a_placeholder_of_the_run_and_a_selector_picks_a_part(edited, places):
    entry = {"keyToEnv": [{"secretKey": "user", "envVar": "A"}]}
    by_run = {"runtimeValue": {"constant": "{{$.pipeline_task_name}}"}}
    found = edited({"secretAsEnv": [{**entry, "secretNameParameter": by_run}]})
    assert check(found, places) == []
    with given(found, places, objects=Objects({"work": {"user": b"me"}})) as setting:
        assert setting.env == {"A": "me"}
    part = {"runtimeValue": {"constant": '{"k": "db"}'}, "parameterExpressionSelector": 'parseJson(string_value)["k"]'}
    found = edited({"secretAsEnv": [{**entry, "secretNameParameter": part}]})
    assert check(found, places) == []
    with given(found, places) as setting:
        assert setting.env == {"A": "me"}


def test_a_task_without_a_document_is_given_nothing_and_its_runner_is_left_alone(compiled, places):
    found = from_kfp.read(compiled(work))
    with given(found, places) as setting:
        assert setting == Setting()
        assert documents.runner(setting) is launcher.run_process


# Names from elsewhere


def test_a_task_waits_for_those_that_only_its_document_reads(compiled):
    @dsl.pipeline(name="names")
    def names():
        name = work(x="db")
        kubernetes.use_secret_as_env(work(), name.output, {"user": "DB_USER"})

    path = compiled(names)
    spec, platform = yaml.safe_load_all(path.read_text())
    del spec["root"]["dag"]["tasks"]["work-2"]["dependentTasks"]  # other compilers may leave it out
    found = from_kfp.parse(yaml.safe_dump(spec) + "---\n" + yaml.safe_dump(platform)).dag.tasks["work-2"]
    assert found.depends_on == ("work",)
    assert documents.references(found) == [graph.Input(graph.TaskOutput("work", "Output"))]


def test_names_reach_into_loops_and_nested_pipelines(compiled, places):
    @dsl.pipeline(name="inner")
    def inner(claim: str):
        kubernetes.mount_pvc(work(), claim, "/data")

    @dsl.pipeline(name="outer")
    def outer(name: str = "db"):
        made = kubernetes.CreatePVC(access_modes=["ReadWriteOnce"], size="1Gi", pvc_name_suffix="-x")
        inner(claim=made.outputs["name"])
        with dsl.ParallelFor(["a", "b"]) as item:
            task = work(x=item)
            kubernetes.mount_pvc(task, made.outputs["name"], "/data")
            kubernetes.use_secret_as_env(task, name, {"user": "DB_USER"})

    found = from_kfp.read(compiled(outer))
    assert check(found, places) == []
    read = {path: [one.source for one in documents.references(task)] for path, task in found.walk()}
    assert read["inner.work"] == [graph.ScopeInput("claim")]
    assert read["for-loop-2.work"] == [
        graph.ScopeInput("pipelinechannel--name"),
        graph.ScopeInput("pipelinechannel--createpvc-name"),
    ]


# The whole


def test_a_process_finds_all_of_it(compiled, tmp_path, places):
    (places.volumes / "data").mkdir(parents=True)
    (places.volumes / "data" / "file").write_text("content")
    marks = tmp_path / "mnt"

    @dsl.pipeline(name="whole")
    def whole():
        task = shell(
            script=f'test "$PASSWORD" = {CANARY}; test "$(cat {marks}/secret/password)" = {CANARY}; cd {marks}; '
            "cat data/file; ls empty; touch empty/x; test -e data/second || { touch data/second; exit 3; }"
        )
        task.set_retry(1, backoff_duration="0s")
        kubernetes.use_secret_as_env(task, "db", {"password": "PASSWORD"})
        kubernetes.use_secret_as_volume(task, "db", f"{marks}/secret")
        kubernetes.mount_pvc(task, "data", f"{marks}/data")
        kubernetes.empty_dir_mount(task, "empty", f"{marks}/empty")

    found = from_kfp.read(compiled(whole))
    task, folder = found.dag.tasks["shell"], tmp_path / "task"
    folder.mkdir()
    script = {"script": task.inputs["script"].source.value}
    with given(found, places, task="shell") as setting:
        launcher.run(convert.task(task), script, {}, folder, runner=documents.runner(setting))
    assert (folder / "log.txt").read_text().split("\n") == [
        "--- attempt 1 of 2", "content--- attempt 2 of 2", "content",
    ]  # fmt: skip
    assert not marks.exists()
    assert not any(
        CANARY in path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "spec.yaml"
    )


def test_a_deadline_ends_an_attempt_and_the_shorter_one_counts(pipeline, places, tmp_path):
    with given(pipeline(lambda task, _: kubernetes.set_timeout(task, 1)), places) as setting:
        for timeout in (None, 9.0):
            with pytest.raises(launcher.TaskError, match="timed out after 1 s"):
                documents.runner(setting)(
                    ["sleep", "9"], [], os.environ, tmp_path, tmp_path / "log", stop=launcher.Stop(), timeout=timeout
                )


@pytest.mark.parametrize(("links", "seen"), [(True, 1), (False, 0)])
def test_another_runner_is_given_the_variables_and_mounts_by_itself(pipeline, places, tmp_path, links, seen):
    path = tmp_path / "mnt"
    calls = []

    def other(command, args, env, folder, log, *, stop, timeout=None, stream=None):
        calls.append((env["A"], len(list(tmp_path.glob("mnt"))), timeout))
        return 0

    found = pipeline(
        lambda task, _: kubernetes.use_secret_as_env(task, "db", {"user": "A"}),
        lambda task, _: kubernetes.empty_dir_mount(task, "x", str(path)),
    )
    with given(found, places) as setting:
        run = documents.runner(setting, other, links=links)
        assert run(["x"], [], {"A": "spec"}, tmp_path, tmp_path / "log", stop=launcher.Stop(), timeout=None) == 0
    assert calls == [("me", seen, None)]


KINDS = ("secretAsEnv", "secretAsVolume", "configMapAsEnv", "configMapAsVolume", "pvcMount", "fieldPathAsEnv")
TEXTS = st.sampled_from(["db", "raw", "conf", "user", "password", "A", "/x", "", "../x", "\0", "A=B"])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "secretName": TEXTS, "configMapName": TEXTS, "constant": TEXTS, "mountPath": TEXTS, "subPath": TEXTS,
        "optional": st.booleans() | TEXTS, "name": TEXTS, "fieldPath": TEXTS,
        "keyToEnv": st.lists(st.fixed_dictionaries({}, optional={
            "secretKey": TEXTS, "configMapKey": TEXTS, "envVar": TEXTS,
        }), max_size=2),
    },
)  # fmt: skip


@settings(deadline=None)
@each(document=st.dictionaries(st.sampled_from(KINDS), st.lists(ENTRIES, max_size=2), max_size=3))
def test_a_secret_is_in_no_problem_and_no_error_whatever_the_document(document, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    places = documents.Places(folder / "volumes", folder / "scratch")
    objects = Objects({name: {key: CANARY.encode() for key in ("user", "password")} for name in ("db", "raw")})
    component = graph.Component(
        "work", graph.Ports(), graph.Ports(), graph.Container("x", "y"), {"kubernetes": document}
    )
    task = graph.Task("work", component)
    root = graph.Component("root", graph.Ports(), graph.Ports(), graph.Dag({"work": task}))
    problems = documents.check(graph.Pipeline("p", root), objects, places.volumes)
    assert CANARY not in "".join(problems)
    try:
        with documents.given(task, lambda source: None, objects, places, NAMES) as setting:
            assert CANARY not in repr(setting)
            failed = None
    except launcher.TaskError as error:
        failed = error
    if failed:
        assert problems
        assert CANARY not in "".join(traceback.format_exception(failed))


# Pipelines of others


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("spec", "warned", "sources"),
    [
        ("critical/pipeline_with_pod_metadata", [], []),
        ("create_pod_metadata_complex", [], []),
        ("pipeline_with_volume_no_cache", [], [graph.TaskOutput("createpvc", "name")] * 2),
        ("critical/pipeline_with_volume_long_name", [], []),
        (
            "parallel_and_nested/nested_parallel_for_secret",
            [],
            [graph.ScopeInput("pipelinechannel--emit-secret-name-Output")],
        ),
        ("gpu-scheduling/nvidia_gpu_scheduling_check", ["tolerations: this machine has no taints"], []),
    ],
)
def test_documents_of_others_are_understood(kfp_specs, places, spec, warned, sources):
    found = from_kfp.read(kfp_specs / "valid" / f"{spec}.yaml")
    assert check(found, places, Objects()) == []
    assert [line.split(": ", 1)[1] for line in documents.warnings(found)] == warned
    read = [one.source for _, task in found.walk() for one in documents.references(task)]
    assert read == sources
