"""What a task gave is taken over by content in other runs, and as it is in a resumed one; nothing else is."""

import json
import os
import shutil
from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from penstock.compile.errors import PenstockError
from penstock.compile.targets import local
from penstock.compile.targets.local import content, fingerprint
from penstock.compile.targets.local.record import RunRecord, State

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def write(text: str, data: Output[Dataset]):
    import os

    os.makedirs(data.path)
    for name in ("a", "b"):
        with open(f"{data.path}/{name}", "w") as file:
            file.write(text + name)
    data.metadata["length"] = len(text)


@component
def read(data: Input[Dataset], suffix: str = "") -> str:
    with open(f"{data.path}/a") as a, open(f"{data.path}/b") as b:
        return a.read() + b.read() + str(data.metadata.get("length")) + suffix


@component
def note(file: str, text: str = "once") -> str:
    with open(file, "a") as out:
        out.write(f"{text}\n")
    return text


@component
def fail_unless(file: str, value: str) -> str:
    import os

    if not os.path.exists(file):
        raise ValueError("not yet")
    return value


@dsl.pipeline(name="pair")
def pair(text: str = "x", suffix: str = "") -> str:
    return read(data=write(text=text).outputs["data"], suffix=suffix).output


@pytest.fixture
def run(compiled, tmp_path):
    def run_it(what, parameters=None, **options) -> RunRecord:
        return local.run(compiled(what), parameters or {}, root=tmp_path / "root", jobs=2, **options)

    return run_it


def reused(record: RunRecord) -> dict[str, str | None]:
    return {task.path: task.reused for task in record.tasks if task.kind == "container"}


def test_a_second_run_takes_over_what_the_first_one_gave(run):
    first, second = run(pair), run(pair)
    assert reused(first) == {"write": None, "read": None}
    assert reused(second) == {"write": f"{first.id}/write", "read": f"{first.id}/read"}
    assert second.state is State.SUCCEEDED
    assert second.outputs.parameters == first.outputs.parameters == {"Output": "xaxb1"}
    write_again = next(task for task in second.tasks if task.path == "write")
    assert (write_again.log, write_again.runner) == (None, None)
    assert write_again.outputs.artifacts["data"][0].uri == "tasks/write/outputs/data"
    assert write_again.outputs.artifacts["data"][0].metadata == {"length": 1}


def test_a_run_keeps_what_it_took_over_when_the_first_one_is_removed(run, tmp_path):
    first, second = run(pair), run(pair)
    shutil.rmtree(first.folder)
    assert (Path(second.folder) / "tasks/write/outputs/data/a").read_text() == "xa"
    third = run(pair)
    assert reused(third)["write"] == f"{first.id}/write"  # where it was made, not where it was found
    assert (Path(third.folder) / "tasks/write/outputs/data/b").read_text() == "xb"


def test_another_parameter_runs_what_it_reaches_and_no_more(run):
    run(pair)
    second = run(pair, {"suffix": "!"})
    assert [path for path, source in reused(second).items() if source is None] == ["read"]
    assert second.outputs.parameters == {"Output": "xaxb1!"}
    assert set(reused(run(pair, {"text": "y"})).values()) == {None}


def test_the_same_content_counts_wherever_it_came_from(run, tmp_path):
    @dsl.pipeline(name="imported")
    def imported(uri: str) -> str:
        data = dsl.importer(artifact_uri=uri, artifact_class=Dataset, metadata={"length": 7})
        return read(data=data.output).output

    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("A")
        (tmp_path / name / "b").write_text("B" if name != "three" else "C")
    assert reused(run(imported, {"uri": str(tmp_path / "one")})) == {"read": None}
    # The importer's port is the same, so only the place differs.
    assert reused(run(imported, {"uri": str(tmp_path / "two")}))["read"]
    assert reused(run(imported, {"uri": str(tmp_path / "three")})) == {"read": None}
    (tmp_path / "one" / "a").write_text("other")
    assert run(imported, {"uri": str(tmp_path / "one")}).outputs.parameters == {"Output": "otherB7"}


def test_outputs_that_were_changed_or_removed_are_made_again(run):
    first = run(pair)
    (Path(first.folder) / "tasks/write/outputs/data/a").write_text("changed")
    second = run(pair)
    assert reused(second) == {"write": None, "read": f"{first.id}/read"}
    shutil.rmtree(Path(second.folder) / "tasks/write/outputs/data")
    assert reused(run(pair))["write"] is None


def test_caching_turned_off_in_the_spec_or_for_the_run_is_honoured(run, tmp_path, monkeypatch):
    @component
    def marked(text: str) -> str:
        import os

        with open(os.environ["RAN"], "a") as out:
            out.write(f"{text}\n")
        return text

    @component
    def silent():
        import os

        with open(os.environ["RAN"], "a") as out:
            out.write("silent\n")

    @dsl.pipeline(name="noted")
    def noted():
        marked(text="always").set_caching_options(False)
        marked(text="cached")
        silent()

    file = tmp_path / "ran"
    monkeypatch.setenv("RAN", str(file))
    run(noted)
    assert sorted(file.read_text().split()) == ["always", "cached", "silent"]
    again = run(noted)
    assert sorted(file.read_text().split()) == ["always", "always", "cached", "silent", "silent"]
    assert [path for path, source in reused(again).items() if source] == ["marked-2"]
    run(noted, reuse=False)
    assert file.read_text().split().count("cached") == 2
    assert reused(run(noted))["marked-2"]  # what ran without reuse can be reused


def test_a_path_among_the_parameters_counts_with_what_lies_there(run, tmp_path, monkeypatch):
    @component
    def load(path: str, more: list = []) -> str:  # noqa: B006
        return path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "rows"
    for given in ({"path": str(file)}, {"path": "folder"}, {"path": "x", "more": [[str(tmp_path / "folder")]]}):
        file.write_text("1")
        run(load, given)
        assert reused(run(load, given))["load"]
        file.write_text("12")
        assert reused(run(load, given)) == {"load": None}
    monkeypatch.setattr("penstock.compile.targets.local.reuse._MOST_NAMED", 2)
    assert reused(run(load, {"path": "folder"})) == {"load": None}  # too much to look at


def test_tasks_that_see_the_runs_name_or_how_others_ended_always_run(run):
    @component
    def named(name: str) -> str:
        return name

    @component
    def heard(status: dsl.PipelineTaskFinalStatus) -> str:
        return status.state

    @dsl.pipeline(name="own")
    def own():
        with dsl.ExitHandler(heard()):
            named(name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)

    run(own)
    assert set(reused(run(own)).values()) == {None}


def test_equal_tasks_of_one_run_all_run(run):
    @component
    def draw(low: int) -> str:
        import os

        return os.urandom(8).hex()

    @dsl.pipeline(name="drawn")
    def drawn():
        second = draw(low=1)
        second.after(draw(low=1))

    record = run(drawn)
    assert set(reused(record).values()) == {None}
    assert len({task.outputs.parameters["Output"] for task in record.tasks}) == 2


def test_a_change_of_installed_code_counts(run, monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "helper.py").write_text("x = 1\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    run(pair)
    assert all(reused(run(pair)).values())
    (package / "helper.py").write_text("x = 2\n")
    assert set(reused(run(pair)).values()) == {None}


def test_a_relative_folder_of_pythonpath_counts(monkeypatch, tmp_path):
    (tmp_path / "helper.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    before = fingerprint.fingerprint()
    assert fingerprint.fingerprint() == before
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert fingerprint.fingerprint() != before


def test_the_fingerprint_covers_this_package_itself(monkeypatch):
    seen = []
    files = fingerprint._files
    monkeypatch.setattr(fingerprint, "_files", lambda source: (seen.extend(one := list(files(source))), one)[1])
    assert len(fingerprint.fingerprint()) == 64
    names = {name for name, _ in seen}
    assert {"penstock/components/training/component.py", "penstock/compile/launcher.py"} <= names
    assert any(name.endswith(".html.j2") for name in names)


# Resume


@dsl.pipeline(name="stops")
def stops(ran: str, gate: str) -> str:
    done = note(file=ran).set_caching_options(False)
    data = write(text=done.output).set_caching_options(False)
    checked = fail_unless(file=gate, value=done.output).set_caching_options(False)
    return read(data=data.outputs["data"], suffix=checked.output).output


def test_a_failed_run_picks_up_where_it_stopped(run, tmp_path):
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    failed = run(stops, {"ran": str(ran), "gate": str(gate)})
    assert failed.state is State.FAILED
    assert json.loads((Path(failed.folder) / "run.json").read_text())["state"] == "FAILED"
    gate.touch()
    record = local.resume(failed.id, root=tmp_path / "root", jobs=2)
    assert record.state is State.SUCCEEDED
    assert record.outputs.parameters == {"Output": "onceaonceb4once"}
    assert ran.read_text() == "once\n"
    assert (record.id, record.started, len(record.resumed)) == (failed.id, failed.started, 1)
    before, after = ({task.path: task for task in one.tasks} for one in (failed, record))
    assert (after["note"].started, after["note"].seconds, after["note"].log) == (
        before["note"].started, before["note"].seconds, before["note"].log,
    )  # fmt: skip
    assert after["note"].reused is None
    with pytest.raises(PenstockError, match="has succeeded; there is nothing to resume"):
        local.resume(failed.id, root=tmp_path / "root", jobs=2)


def test_a_resumed_run_makes_again_what_is_gone_and_what_depends_on_it(run, tmp_path):
    ran, gate = tmp_path / "ran", tmp_path / "gate"

    @dsl.pipeline(name="long")
    def long(ran: str, gate: str):
        data = write(text="t").set_caching_options(False)
        seen = read(data=data.outputs["data"]).set_caching_options(False)
        note(file=ran, text=seen.output).set_caching_options(False)
        fail_unless(file=gate, value="v").set_caching_options(False).after(seen)

    failed = run(long, {"ran": str(ran), "gate": str(gate)})
    shutil.rmtree(Path(failed.folder) / "tasks/write/outputs")
    gate.touch()
    record = local.resume(failed.id, root=tmp_path / "root", jobs=2)
    assert record.state is State.SUCCEEDED
    started = {task.path: task.started for task in record.tasks}
    assert started["write"] > failed.started
    assert started["read"] > record.resumed[0]
    assert ran.read_text() == "tatb1\n"  # its own input is the same text


def test_loops_are_taken_up_iteration_by_iteration(run, tmp_path):
    ran, gate = tmp_path / "ran", tmp_path / "gate"

    @dsl.pipeline(name="looped")
    def looped(ran: str, gate: str) -> list[str]:
        with dsl.ParallelFor(["a", "b", "c"]) as item:
            noted = note(file=ran, text=item).set_caching_options(False)
            out = fail_unless(file=gate, value=noted.output).set_caching_options(False)
        return dsl.Collected(out.output)

    failed = run(looped, {"ran": str(ran), "gate": str(gate)})
    assert failed.state is State.FAILED
    gate.touch()
    record = local.resume(failed.id, root=tmp_path / "root", jobs=2)
    assert record.outputs.parameters == {"Output": ["a", "b", "c"]}
    assert sorted(ran.read_text().split()) == ["a", "b", "c"]


def test_a_run_at_work_or_unknown_is_not_resumed(run, tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr("penstock.compile.targets.local.folder._LONGEST_ENDING", 0.1)
    failed = run(stops, {"ran": str(tmp_path / "ran"), "gate": str(tmp_path / "gate")})
    with open(Path(failed.folder) / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PenstockError, match="is at work"):
            local.resume(failed.id, root=tmp_path / "root", jobs=2)
    for wrong in ("nothing", "../runs"):
        with pytest.raises(PenstockError, match="there is no run"):
            local.resume(wrong, root=tmp_path / "root", jobs=2)
    (Path(failed.folder) / "run.json").write_text("{")
    with pytest.raises(PenstockError, match=r"run\.json"):
        local.resume(failed.id, root=tmp_path / "root", jobs=2)


# Content


def test_a_digest_depends_on_names_and_bytes_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "file").write_text("x")
    os.utime(tmp_path / "two" / "in" / "file", (1, 1))
    assert content.digest(tmp_path / "one") == content.digest(tmp_path / "two")
    (tmp_path / "two" / "in" / "empty").mkdir()
    assert content.digest(tmp_path / "one") != content.digest(tmp_path / "two")
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").write_text("x")
    assert content.digest(tmp_path / "file") == content.digest(tmp_path / "other")


def test_links_keep_times_and_follow_no_symbolic_link(tmp_path):
    (tmp_path / "from" / "in").mkdir(parents=True)
    (tmp_path / "from" / "in" / "file").write_text("x")
    (tmp_path / "from" / "way").symlink_to("in/file")
    content.link(tmp_path / "from", tmp_path / "to")
    assert content.look(tmp_path / "from") == content.look(tmp_path / "to")
    assert os.path.samefile(tmp_path / "from/in/file", tmp_path / "to/in/file")
    assert os.readlink(tmp_path / "to" / "way") == "in/file"
    with pytest.raises(FileExistsError):
        content.link(tmp_path / "from", tmp_path / "to")
