"""Images are built once for what they are made of, and specs name what a registry has of them."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from penstock.compile import images, rewrites
from penstock.compile.errors import PenstockError
from tests.compile.machines import BASE

PENSTOCK = Path(sys.executable).with_name("penstock")
REGISTRY = "europe-docker.pkg.dev/acme/images"
DIGEST = "sha256:" + "ab" * 32
DOCKERFILE = """\
ARG BASE_IMAGE={base}
FROM ${{BASE_IMAGE}}
ARG ENVIRONMENT
ARG VERSION
COPY containers/${{ENVIRONMENT}}/requirements.lock /lock
COPY code.py /code.py
RUN {run}
USER 12345
LABEL penstock.read-only-root=true title=${{ENVIRONMENT}} version=${{VERSION}}
"""
PIPELINE = """\
from kfp import dsl

@dsl.component(base_image="{project}/one:1.0", install_kfp_package=False)
def nothing():
    pass

@dsl.container_component
def write(out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image="{project}/one:1.0", command=["sh", "-c", 'cat /lock >"$0"; ls /sys/class/net; id -u'], args=[out]
    )

@dsl.component(base_image="python:3.11", install_kfp_package=False)
def elsewhere():
    pass
"""


@pytest.fixture
def project() -> str:
    return f"penstock-test-{secrets.token_hex(4)}"


@pytest.fixture
def repository(tmp_path, project):
    """A repository of somebody else's, with two environments."""
    folder = tmp_path / "repository"
    for name in ("one", "two"):
        (folder / "containers" / name).mkdir(parents=True)
        (folder / "containers" / name / "requirements.lock").write_text(f"{name}==1\n")
    (folder / "containers" / "one" / "smoke.yaml").write_text("run: pipelines.py:write\n")
    write_dockerfile(folder)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\nversion = "1.0"\n')
    (folder / "code.py").write_text("1\n")
    (folder / "pipelines.py").write_text(PIPELINE.format(project=project))
    (folder / "notes.md").write_text("notes\n")
    (folder / ".dockerignore").write_text("# what nothing is made of\n*.md\n**/smoke.yaml\n")
    return folder


def write_dockerfile(folder: Path, base: str = BASE, run: str = "true") -> None:
    (folder / "containers" / "Dockerfile").write_text(DOCKERFILE.format(base=base, run=run))


def environment(folder: Path, name: str = "one") -> images.Environment:
    """Return an environment as it is now."""
    return images.environments(folder, [name])[0]


def penstock(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [PENSTOCK, *arguments], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=280
    )


def one_line(done: subprocess.CompletedProcess) -> str:
    """Return the one line of an error that the command ended with."""
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.stderr.splitlines()[-1] == errors[0]
    return errors[0]


def test_environments_are_the_folders_with_a_lock(repository, project):
    (repository / "containers" / "draft").mkdir()
    found = images.environments(images.repository(repository / "containers" / "one"))
    assert [each.image for each in found] == [f"{project}/one:1.0", f"{project}/two:1.0"]


def test_an_unknown_environment_lists_known_ones_and_one_without_a_lock_is_called_that(repository):
    with pytest.raises(PenstockError, match=r"there is no environment three; .* has one, two"):
        images.environments(repository, ["three"])
    (repository / "containers" / "draft").mkdir()
    with pytest.raises(PenstockError, match=r"containers/draft has no requirements\.lock"):
        images.environments(repository, ["draft"])


def test_outside_of_a_repository_the_error_says_what_is_missing(tmp_path):
    assert "containers/Dockerfile" in one_line(penstock("images", "build", cwd=tmp_path))


def test_the_tag_changes_with_what_an_image_is_made_of_and_with_nothing_else(repository):
    def inputs() -> str:
        return environment(repository).inputs

    before = inputs()
    for path in (
        "notes.md",
        "containers/two/requirements.lock",
        "containers/one/smoke.yaml",
        "containers/digests.json",
    ):
        (repository / path).write_text("other\n")
        assert inputs() == before, path
    os.utime(repository / "code.py", (1, 1))
    assert inputs() == before
    seen = {before}
    for path in ("code.py", "containers/one/requirements.lock", "containers/Dockerfile"):
        (repository / path).write_text("other\n")
        seen.add(inputs())
    (repository / "code.py").chmod(0o755)
    seen.add(inputs())
    (repository / "new.py").symlink_to("code.py")
    seen.add(inputs())
    assert len(seen) == 6


def test_the_tag_changes_with_the_base_image(repository):
    own = environment(repository)
    assert own.tag("sha256:1") != own.tag("sha256:2")
    assert own.tag("sha256:1") == environment(repository).tag("sha256:1")


def test_an_environment_starts_from_the_image_that_its_folder_names_and_the_others_from_the_dockerfiles(repository):
    file = repository / "containers" / "one" / "base"
    before = environment(repository).inputs
    file.write_text("debian:13\n")
    one, two = images.environments(repository)
    assert (one.base, two.base) == ("debian:13", "")
    assert one.inputs != before
    # What an option says is for those that name none: another Python would not read their locks.
    chosen = images.Engine(print, base="hardened:1")
    assert [chosen._base_of(each) for each in (one, two)] == ["debian:13", "hardened:1"]
    assert images.Engine(print)._base_of(two) == BASE


def test_a_base_that_is_no_name_is_refused(repository):
    (repository / "containers" / "one" / "base").write_text("debian 13\n")
    with pytest.raises(PenstockError, match=r"containers/one/base: holds 2 words; write the name of one image in it"):
        _ = environment(repository).base


def test_the_project_that_specs_name_is_the_one_that_images_are_built_of():
    from penstock.components.images import image

    here = Path(__file__).parents[2]
    for found in images.environments(here):
        assert found.image == image(found.name)


def test_digests_of_others_stay_and_those_of_another_registry_do_not(repository, project):
    one, two = images.environments(repository)
    images.write_digests(repository, "r.example", {one: ("t1", DIGEST)})
    path = images.write_digests(repository, "r.example", {two: ("t2", DIGEST)})
    assert set(json.loads(path.read_text())["images"]) == {f"{project}/one", f"{project}/two"}
    images.write_digests(repository, "s.example", {two: ("t2", DIGEST)})
    assert set(json.loads(path.read_text())["images"]) == {f"{project}/two"}
    assert [file.name for file in path.parent.iterdir() if "digests" in file.name] == ["digests.json"]


def test_digests_that_cannot_be_written_leave_what_was_there(repository, monkeypatch):
    one, two = images.environments(repository)
    path = images.write_digests(repository, "r.example", {one: ("t1", DIGEST)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.os, "replace", full)
    with pytest.raises(PenstockError, match=r"digests\.json: cannot be written: No space left on device"):
        images.write_digests(repository, "r.example", {two: ("t2", DIGEST)})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if "digests" in file.name] == ["digests.json"]


@pytest.fixture
def pushed(repository):
    """The repository with the digests of one of its images."""
    images.write_digests(repository, REGISTRY, {environment(repository): ("tag", DIGEST)})
    return repository


def compile_there(folder: Path, *arguments: str, function: str = "write") -> subprocess.CompletedProcess:
    return penstock("compile", f"pipelines.py:{function}", "--output", "specs", *arguments, cwd=folder)


def test_compile_writes_digests_into_the_spec(pushed):
    done = compile_there(pushed, "--registry", REGISTRY)
    assert done.returncode == 0, done.stderr
    spec = yaml.safe_load((pushed / "specs" / "write.yaml").read_text())
    assert list(rewrites.images(spec)) == [f"{REGISTRY}/one@{DIGEST}"]
    assert not rewrites.mutable_images(spec)


def test_compile_without_a_registry_leaves_images_alone(pushed, project):
    assert compile_there(pushed).returncode == 0
    spec = yaml.safe_load((pushed / "specs" / "write.yaml").read_text())
    assert list(rewrites.images(spec)) == [f"{project}/one:1.0"]


def test_digests_of_other_sources_are_refused(pushed):
    (pushed / "containers" / "one" / "requirements.lock").write_text("one==2\n")
    line = one_line(compile_there(pushed, "--registry", REGISTRY))
    assert "built from other files" in line
    assert "penstock images build" in line
    assert not (pushed / "specs").exists()


def test_a_mutable_tag_is_refused_unless_it_is_allowed(pushed):
    line = one_line(compile_there(pushed, "--registry", REGISTRY, function="elsewhere"))
    assert "python:3.11:" in line
    assert "--allow-mutable-tags" in line
    done = compile_there(pushed, "--registry", REGISTRY, "--allow-mutable-tags", function="elsewhere")
    assert done.returncode == 0, done.stderr


def test_one_image_of_others_may_go_by_its_tag(pushed):
    line = one_line(compile_there(pushed, "--registry", REGISTRY, "--by-tag", "alpine", function="elsewhere"))
    assert "python:3.11:" in line
    done = compile_there(pushed, "--registry", REGISTRY, "--by-tag", "python", function="elsewhere")
    assert done.returncode == 0, done.stderr
    assert "--by-tag go with --registry" in compile_there(pushed, "--by-tag", "python").stderr


def test_without_digests_the_own_images_go_to_the_registry_by_tag_where_that_is_allowed(repository):
    assert "penstock images push" in one_line(compile_there(repository, "--registry", REGISTRY))
    done = compile_there(repository, "--registry", REGISTRY, "--allow-mutable-tags")
    assert done.returncode == 0, done.stderr
    spec = yaml.safe_load((repository / "specs" / "write.yaml").read_text())
    assert list(rewrites.images(spec)) == [f"{REGISTRY}/one:1.0"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "is not what"),
        ('{"format": "other"}', "format"),
        (
            '{"format": "penstock.digests/1", "registry": "r", "images": {"a": {"digest": "x", "inputs": "y"}}}',
            "no digest",
        ),
        ('{"format": "penstock.digests/1", "registry": "r", "images": {}}', "is of registry r"),
    ],
)
def test_a_file_of_digests_that_is_not_one_is_refused_in_one_line(repository, content, reason):
    (repository / "containers" / "digests.json").write_text(content)
    assert reason in one_line(compile_there(repository, "--registry", REGISTRY))


def test_a_file_of_digests_that_is_not_there_is_refused(repository):
    line = one_line(compile_there(repository, "--registry", REGISTRY, "--digests", "nowhere.json"))
    assert "nowhere.json" in line


def test_options_of_the_registry_want_a_registry(repository):
    done = compile_there(repository, "--allow-mutable-tags")
    assert done.returncode == 2
    assert "go with --registry" in done.stderr


@pytest.mark.parametrize("command", [["build"], ["smoke"], ["push", "--registry", "127.0.0.1:9"]])
def test_without_an_engine_the_error_says_so(repository, command):
    line = one_line(penstock("images", *command, cwd=repository, DOCKER_HOST="unix:///nowhere/docker.sock"))
    assert "no container engine answers" in line
    assert line.endswith("start Docker")


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "is not there"), ("run: [", "wants"), ("parameters: {}", "wants"), ("- a", "wants")]
)
def test_a_smoke_test_that_is_not_one_is_refused(repository, content, reason):
    file = repository / "containers" / "one" / "smoke.yaml"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(PenstockError, match=rf"smoke\.yaml.* {reason}"):
        images.smoke_test(environment(repository))


def test_users_and_passwords_of_a_remote_stay_out_of_labels(repository):
    for command in (["init", "-q"], ["remote", "add", "origin", "https://ada:secret@git.example/team/code.git"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    assert images._source(repository) == "https://git.example/team/code"


# With an engine


@pytest.fixture
def engine(project, tmp_path, monkeypatch, base):
    """The engine; images that it makes, and logs that it leaves, are removed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    with images.Engine(said.append) as engine:
        engine.said = said
        yield engine
    for image in base.images():
        for tag in image.get("RepoTags") or ():
            if project in tag or tag.startswith("127.0.0.1:9/"):
                base.remove_image(tag, force=True)


@pytest.mark.docker
def test_what_has_not_changed_is_not_built_again(repository, engine, project):
    first = engine.build(environment(repository))
    assert first.seconds is not None
    assert first.name.startswith(f"{project}/one:")
    assert first.size > 0
    again = engine.build(environment(repository))
    assert again.seconds is None
    assert again.id == first.id
    (repository / "code.py").write_text("2\n")
    assert engine.build(environment(repository)).id != first.id


@pytest.mark.docker
def test_the_name_that_specs_have_is_the_image_as_it_is_now(repository, engine):
    own = environment(repository)
    built = engine.build(own)
    assert engine._inspect(own.image)["Id"] == built.id
    assert engine._inspect(own.image)["Config"]["Labels"]["version"] == "1.0"
    (repository / "code.py").write_text("2\n")
    other = engine.build(environment(repository))
    (repository / "code.py").write_text("1\n")
    assert engine._inspect(own.image)["Id"] == other.id
    engine.build(environment(repository))
    assert engine._inspect(own.image)["Id"] == built.id


@pytest.mark.docker
def test_a_build_that_fails_says_where_and_keeps_its_log(repository, engine):
    write_dockerfile(repository, run="echo no compiler; exit 3")
    with pytest.raises(
        PenstockError, match=r"one: cannot be built: at step 7 of 9: no compiler: .* code: 3; its log is "
    ) as failed:
        engine.build(environment(repository))
    log = Path(str(failed.value).rpartition(" ")[2])
    assert "no compiler" in log.read_text()


@pytest.mark.docker
def test_a_full_disk_is_called_that(repository, engine):
    write_dockerfile(repository, run="echo write: No space left on device; exit 1")
    with pytest.raises(PenstockError, match=r"No space left on device.*docker image prune"):
        engine.build(environment(repository))


@pytest.mark.docker
def test_a_base_image_that_cannot_be_had_is_named(repository, engine):
    write_dockerfile(repository, base="127.0.0.1:9/nowhere:1")
    with pytest.raises(PenstockError, match=r"base image 127\.0\.0\.1:9/nowhere:1 is neither here nor .*--base-image"):
        engine.build(environment(repository))


@pytest.mark.docker
def test_an_image_that_was_not_built_is_neither_smoked_nor_pushed(repository, engine):
    for command in (["smoke", "one"], ["push", "one", "--registry", "127.0.0.1:9"]):
        assert "penstock images build one" in one_line(penstock("images", *command, cwd=repository))
    assert not (repository / "containers" / "digests.json").exists()


@pytest.mark.docker
def test_a_smoke_test_runs_in_the_image_without_a_network(repository, engine):
    done = penstock("images", "build", "one", "--smoke", "--json", cwd=repository)
    assert done.returncode == 0, done.stderr
    (shown,) = json.loads(done.stdout)
    assert shown["smoke_seconds"] > 0
    (repository / "pipelines.py").write_text(
        (repository / "pipelines.py").read_text().replace("id -u", "id -u; test 2 = $(ls /sys/class/net | wc -l)")
    )
    failing = penstock("images", "build", "one", "--smoke", cwd=repository)
    assert "write fails in it" in one_line(failing)


@pytest.mark.docker
def test_a_smoke_test_in_another_image_is_refused(repository, engine):
    (repository / "containers" / "one" / "smoke.yaml").write_text("run: pipelines.py:elsewhere\n")
    engine.build(environment(repository))
    assert "elsewhere runs in python, not in" in one_line(penstock("images", "smoke", "one", cwd=repository))


@pytest.mark.docker
def test_what_is_pushed_can_be_had_by_the_digest_that_specs_name(repository, engine, registry):
    import docker

    built = engine.build(environment(repository))
    done = penstock("images", "push", "one", "--registry", f"{registry}/team", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert compile_there(repository, "--registry", f"{registry}/team").returncode == 0
    spec = yaml.safe_load((repository / "specs" / "write.yaml").read_text())
    (name,) = rewrites.images(spec)
    with contextlib.closing(docker.from_env().api) as client:
        for event in client.pull(name, stream=True, decode=True):
            assert "error" not in event, event
        assert client.inspect_image(name)["Id"] == built.id
        client.remove_image(name, force=True)


@pytest.mark.docker
def test_what_another_machine_pushed_is_fetched_in_place_of_built(repository, engine, registry):
    built = engine.build(environment(repository))
    engine.push(built, registry)
    for name in (built.name, f"{registry}/one:{built.name.rpartition(':')[2]}", environment(repository).image):
        engine._client.remove_image(name, force=True)
    fetched = engine.build(environment(repository), registry)
    assert fetched.seconds is None
    assert fetched.name == built.name


@pytest.mark.docker
def test_a_registry_that_refuses_is_named_and_no_digest_is_written(repository, engine):
    engine.build(environment(repository))
    line = one_line(penstock("images", "push", "one", "--registry", "127.0.0.1:9/team", cwd=repository))
    assert "127.0.0.1:9/team/one: cannot be pushed" in line
    assert "docker login" in line
    assert not (repository / "containers" / "digests.json").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--image", "tabular"], "--image tabular: give each image once, as NAME=OTHER"),
        (["--image", "tabular=a", "--image", "tabular=b"], "give each image once"),
        (["--image", "serving=own"], "--image serving=…: no step runs in such an image; they run in penstock/"),
    ],
)
def test_images_that_cannot_be_swapped_are_named(arguments, problem, tmp_path):
    command = [PENSTOCK, "compile", "tabular_training", "--output", tmp_path, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert problem in one_line(done)
    assert not list(tmp_path.iterdir())


def test_a_pipeline_is_compiled_for_another_environment(tmp_path):
    """A digest of what is swapped in is what is pinned: swapping comes first."""
    command = [PENSTOCK, "compile", "ingest", "--output", tmp_path, "--image", "tabular=tensorflow"]
    assert subprocess.run(command).returncode == 0
    [image] = rewrites.images(yaml.safe_load((tmp_path / "ingest.yaml").read_text()))
    assert rewrites.split(image)[0] == "penstock/tensorflow"
