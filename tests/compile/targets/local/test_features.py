"""What the engine does not run is refused by name, all at once, before anything starts."""

import pytest
import yaml
from kfp import dsl

from penstock.compile import commands, from_kfp, graph
from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local import features
from penstock.compile.targets.local.placement import Place, place


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def plain(value: str = "pip install numpy"):
    import subprocess  # noqa: F401  a source that names `pip install pandas` installs nothing by itself

    print("pip install pandas")


@dsl.component(base_image="python:3.11")
def with_kfp(value: str = "") -> str:
    return value + "!"


@dsl.component(base_image="python:3.11", packages_to_install=["numpy<2", "pandas[parquet]>=2; python_version>'3.8'"])
def with_packages():
    pass


@dsl.component(base_image="python:3.11", use_venv=True, packages_to_install=["kfp==2.17.0"])
def in_venv():
    pass


@dsl.component(base_image="python:3.11", target_image="example/mine:1")
def in_image():
    pass


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def configured(config: dsl.TaskConfig):
    pass


@dsl.container_component
def without_command():
    return dsl.ContainerSpec(image="example/server:1")


@dsl.container_component
def on_vertex():
    return dsl.ContainerSpec(image="debian:12", command=["echo", "{{$.pipeline_google_cloud_location}}"])


@dsl.container_component
def typo(value: str):
    return dsl.ContainerSpec(image="debian:12", command=["echo", "{{$.inputs.parameters['valve']}}"])


@dsl.container_component
def installing():
    return dsl.ContainerSpec(
        image="debian:12", command=["sh", "-c"], args=["apt-get update; pip3 install -q -i https://x flask && serve"]
    )


def refusals(compiled, what, runner="subprocess") -> list[str]:
    found = features.check(from_kfp.read(compiled(what)), runner)
    return [f"{one.path}: {one.feature} ({one.detail})" for one in found]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (plain, []),
        (with_kfp, []),
        (in_venv, []),
        (with_packages, []),
        (installing, ["installing: pip install in a command of its own, in a process (flask)"]),
        (without_command, ["without-command: command of the image, in a process (example/server:1)"]),
        (in_image, ["in-image: containerized Python component, in a process (example/mine:1)"]),
        (on_vertex, ["on-vertex: unknown placeholder (pipeline_google_cloud_location)"]),
        (typo, ["typo: unknown placeholder (inputs.parameters.valve)"]),
        (configured, []),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_component_needs_is_refused_by_name(compiled, what, expected):
    assert refusals(compiled, what) == expected


def test_containers_bring_what_processes_lack(compiled):
    for what in (installing, without_command, in_image):
        for runner in ("auto", "docker"):
            assert refusals(compiled, what, runner) == []


@pytest.mark.parametrize(
    ("what", "runner", "expected"),
    [
        (plain, "auto", Place.PROCESS),
        (plain, "docker", Place.CONTAINER),
        (with_packages, "auto", Place.PROCESS),
        (in_image, "auto", Place.CONTAINER),
        (installing, "auto", Place.CONTAINER),
        (installing, "subprocess", Place.PROCESS),
    ],
)
def test_auto_takes_a_container_for_what_is_made_of_its_image(compiled, what, runner, expected):
    ((_, task),) = from_kfp.read(compiled(what)).walk()
    assert place(task, runner) is expected


def test_all_refusals_come_at_once_and_nothing_starts(compiled, tmp_path):
    @dsl.pipeline(name="many")
    def many():
        plain()
        without_command()
        with_packages()
        dsl.importer(artifact_uri="oci://registry/model", artifact_class=dsl.Model)

    with pytest.raises(PenstockError) as caught:
        local.run(compiled(many), {}, root=tmp_path / "root", jobs=1, runner="subprocess")
    message = str(caught.value)
    assert "task without-command: command of the image, in a process (example/server:1): processes do not" in message
    assert "with-packages" not in message
    assert "task importer: remote importer that cannot be fetched (oci://registry/model: unknown scheme" in message
    assert not (tmp_path / "root").exists()


def test_settings_of_an_unknown_platform_are_refused_with_its_name(compiled):
    spec = compiled(plain).read_text()
    executors = {"executors": {"exec-plain": {"nodeSelector": {"labels": {"a": "b"}}}}}
    for name, expected in (("kubernetes", []), ("nomad", [("plain", "nomad")])):
        platform = {"platforms": {name: {"deploymentSpec": executors}}}
        found = features.check(from_kfp.parse(spec + "\n---\n" + yaml.safe_dump(platform)), "auto")
        assert [(one.path, one.detail) for one in found] == expected


def test_the_shell_that_installs_kfp_is_left_out_and_the_rest_is_the_components_own(compiled, tmp_path):
    (task,) = from_kfp.read(compiled(with_kfp)).dag.tasks.values()
    assert isinstance(task.component.body, graph.Container)
    whole = task.component.body.command
    assert commands.without_install(whole) == whole[3:]
    assert whole[3:5] == ("sh", "-ec")
    record = local.run(compiled(with_kfp), {"value": "x"}, root=tmp_path, jobs=1)
    assert record.outputs.parameters == {"Output": "x!"}
