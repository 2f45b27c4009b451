"""The layers of dependencies are installed once: other machines take them from the registry."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.compile import images
from tests.compile.machines import BASE, machine
from tests.compile.test_images import engine, environment, penstock, project, repository  # noqa: F401  fixtures

ROOT = Path(__file__).parents[2]
# What is installed differs each time, as byte-code and times do.
DOCKERFILE = f"""\
# How to build it
ARG BASE_IMAGE={BASE}

FROM ${{BASE_IMAGE}} AS dependencies
ARG ENVIRONMENT
COPY containers/trim.py containers/${{ENVIRONMENT}}/requirements.lock /
RUN cat /proc/sys/kernel/random/uuid > /installed

FROM ${{BASE_IMAGE}} AS wheel
COPY code.py /code.py

FROM dependencies
ARG VERSION
ARG REVISION
COPY --from=wheel /code.py /code.py
USER 12345
"""


@pytest.fixture
def layered(repository):  # noqa: F811
    """A repository whose Dockerfile keeps dependencies apart."""
    (repository / "containers" / "Dockerfile").write_text(DOCKERFILE)
    (repository / "containers" / "trim.py").write_text("trim\n")
    return repository


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def tag(folder: Path) -> str:
    return environment(folder).tag_of_dependencies("sha256:1")


def test_the_tag_of_dependencies_is_a_hash_of_their_own_inputs(layered):
    dockerfile = layered / "containers" / "Dockerfile"
    before = tag(layered)
    assert before.startswith("dependencies-")
    (layered / "code.py").write_text("2\n")
    (layered / "containers" / "two" / "requirements.lock").write_text("two==2\n")
    edit(layered / "pyproject.toml", "1.0", "1.1")
    edit(dockerfile, "How to", "How not to")
    edit(dockerfile, "USER 12345", "USER 54321")
    assert tag(layered) == before
    seen = {before, environment(layered).tag_of_dependencies("sha256:2"), environment(layered, "two").tag("sha256:1")}
    for path, old, new in (
        (dockerfile, "uuid", "boot_id"),
        (layered / "containers" / "one" / "requirements.lock", "one==1", "one==2"),
        (layered / "containers" / "trim.py", "trim", "trim more"),
    ):
        edit(path, old, new)
        seen.add(tag(layered))
    assert len(seen) == 6


@pytest.mark.parametrize("source", ["patches", "patches/*", "patches/a.txt"])
def test_files_of_folders_and_patterns_that_the_stage_names_are_inputs(layered, source):
    (layered / "patches").mkdir()
    (layered / "patches" / "a.txt").write_text("1\n")
    edit(layered / "containers" / "Dockerfile", "RUN cat", f"COPY {source} ./\nRUN cat")
    before = tag(layered)
    (layered / "code.py").write_text("2\n")
    assert tag(layered) == before
    (layered / "patches" / "a.txt").write_text("2\n")
    assert tag(layered) != before


def test_a_dockerfile_without_the_stage_has_no_image_of_dependencies(repository):  # noqa: F811
    assert tag(repository) == ""


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("containers/*/requirements.lock")))
def test_our_code_is_not_among_the_inputs_of_our_dependencies(name, tmp_path):
    for file in environment(ROOT, name).files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    before = tag_of = environment(tmp_path, name).inputs_of_dependencies
    assert before
    for file in ("components/__init__.py", "compile/cli.py", "setup.py", "containers/check.py"):
        (tmp_path / file).write_text("changed\n")
    assert environment(tmp_path, name).inputs_of_dependencies == before
    for file in ("containers/trim.py", f"containers/{name}/requirements.lock"):
        (tmp_path / file).write_text("changed\n")
        assert environment(tmp_path, name).inputs_of_dependencies != tag_of
        tag_of = environment(tmp_path, name).inputs_of_dependencies


# With an engine


def layers(name: str, address: str = "") -> list[str]:
    command = ["docker", *(["--host", address] if address else ()), "image", "inspect", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[0]["RootFS"]["Layers"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_machine_that_never_built_takes_dependencies_from_the_registry(layered, engine, registry, tmp_path):  # noqa: F811
    first = engine.build(environment(layered))
    done = penstock("images", "push", "one", "--registry", registry, cwd=layered)
    assert done.returncode == 0, done.stderr
    stored = size(tmp_path / "registry")
    (layered / "code.py").write_text("2\n")
    with machine([BASE], registry=tmp_path / "registry.yaml") as address:
        built = penstock("images", "build", "one", "--registry", registry, "--json", cwd=layered, DOCKER_HOST=address)
        assert built.returncode == 0, built.stderr
        (image,) = json.loads(built.stdout)
        assert image["build_seconds"] is not None
        assert image["id"] != first.id
        kept = layers(first.dependencies)
        assert layers(image["image"], address)[: len(kept)] == layers(first.name)[: len(kept)] == kept
        assert layers(image["image"], address) != layers(first.name)
        done = penstock("images", "push", "one", "--registry", registry, cwd=layered, DOCKER_HOST=address)
        assert done.returncode == 0, done.stderr
    assert size(tmp_path / "registry") - stored < 50_000, "layers that the registry has are not stored again"


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_dependencies_that_have_changed_are_installed_anew(layered, engine, registry):  # noqa: F811
    first = engine.build(environment(layered))
    engine.push(first, registry)
    (layered / "containers" / "one" / "requirements.lock").write_text("one==2\n")
    second = engine.build(environment(layered), registry)
    assert second.dependencies != first.dependencies
    assert layers(second.dependencies)[-1] != layers(first.dependencies)[-1]


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_an_input_that_the_tag_misses_costs_time_and_nothing_else(layered, engine, registry, tmp_path):  # noqa: F811
    # Nothing in the stage names what is in the repository's root, so that the tag stays the same.
    edit(layered / "containers" / "Dockerfile", "RUN cat", "COPY . /all\nRUN cat")
    first = engine.build(environment(layered))
    engine.push(first, registry)
    (layered / "code.py").write_text("2\n")
    second = engine.build(environment(layered))
    with machine([BASE], registry=tmp_path / "registry.yaml") as address:
        built = penstock("images", "build", "one", "--registry", registry, "--json", cwd=layered, DOCKER_HOST=address)
        assert built.returncode == 0, built.stderr
        third = layers(json.loads(built.stdout)[0]["image"], address)
    assert second.dependencies == first.dependencies
    for changed in (layers(second.name), third):
        kept = [layer for layer in changed if layer in layers(first.name)]
        assert kept == layers(first.name)[:2], "of what was installed before there is the base, and the lock"


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_on_the_machine_that_built_them_dependencies_are_not_installed_again(layered, engine):  # noqa: F811
    first = engine.build(environment(layered))
    (layered / "code.py").write_text("2\n")
    second = engine.build(environment(layered))
    assert second.id != first.id
    assert set(layers(first.dependencies)) <= set(layers(second.name))
    # What is left of them without their name is as good.
    engine._client.remove_image(first.dependencies)
    (layered / "code.py").write_text("3\n")
    third = engine.build(environment(layered))
    assert layers(third.dependencies) == layers(second.name)[: len(layers(third.dependencies))]
    (layered / "code.py").write_text("2\n")
    with images.Engine(lambda line: None) as other:
        assert other.existing(environment(layered)) == images.Image(**{**vars(second), "seconds": None})
