"""The page of a run says all that the record says, to everybody, and runs nothing."""

from __future__ import annotations

import datetime
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from penstock.compile.targets.local import report
from penstock.compile.targets.local.outline import flat, message, outline, short
from penstock.compile.targets.local.record import ArtifactRecord, RunRecord, State, TaskRecord, Values

START = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
CONDITION = "inputs.parameter_values['pipelinechannel--evaluate-blessed'] == true"


def task(path: str, *after: str, begin: float | None = 0.0, seconds: float | None = 1.0, **fields: Any) -> TaskRecord:
    started = (START + datetime.timedelta(seconds=begin)).isoformat() if begin is not None else None
    name = path.rpartition(".")[2]
    defaults = {"kind": "container", "state": State.SUCCEEDED}
    return TaskRecord(path=path, name=name, depends_on=after, started=started, seconds=seconds, **defaults | fields)


def run(*tasks: TaskRecord, **fields: Any) -> RunRecord:
    defaults: dict[str, Any] = {
        "id": "run-1",
        "pipeline": "a pipeline",
        "folder": "somewhere",
        "spec_sha256": "5" * 64,
        "parameters": {},
        "state": State.SUCCEEDED,
        "started": START.isoformat(),
        "seconds": 10.0,
    }
    return RunRecord(tasks=tasks, **defaults | fields)


def written(record: RunRecord, folder: Path) -> str:
    report.write(record, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags, attributes and text, and minds the nesting."""

    VOID = frozenset({"meta", "rect", "path", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.text += " " if tag in ("td", "dt") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def artifact(name: str, uri: str, kind: str = "system.Artifact", **metadata: Any) -> ArtifactRecord:
    return ArtifactRecord(name, kind, uri, metadata)


@pytest.fixture
def training(tmp_path: Path) -> RunRecord:
    page = tmp_path / "tasks" / "train" / "outputs" / "report"
    page.parent.mkdir(parents=True)
    page.write_text("<!doctype html><h1>Training</h1>")
    (tmp_path / "tasks" / "train" / "log.txt").write_text("log")
    (tmp_path / "spec.yaml").write_text("")
    (tmp_path / "run.json").write_text("")
    outputs = Values({"rounds": 137}, {"report": [artifact("report", "tasks/train/outputs/report", "system.HTML")]})
    return run(
        task("ingest", seconds=2.0),
        task(
            "train", "ingest", begin=2.0, seconds=6.0, outputs=outputs, metrics={"auc": 0.75}, log="tasks/train/log.txt"
        ),
        task("gate", "train", kind="dag", condition=CONDITION, state=State.SKIPPED, begin=None, seconds=None),
        task("gate.register", state=State.SKIPPED, begin=None, seconds=None),
        parameters={"query": "SELECT 1\nFROM x", "seed": 7},
    )


def test_page_holds_what_the_record_holds(training: RunRecord, tmp_path: Path) -> None:
    page = Page(written(training, tmp_path))
    text = " ".join(page.text.split())
    for expected in ("a pipeline", "run-1", "5" * 64, "2 succeeded, 1 skipped", "2026-03-01 12:00:00 UTC", "10.0 s"):
        assert expected in text
    for expected in ("rounds 137", "auc 0.75", "query SELECT 1 FROM x", "seed 7", "if evaluate-blessed == true"):
        assert expected in text


def test_every_link_leads_somewhere(training: RunRecord, tmp_path: Path) -> None:
    page = Page(written(training, tmp_path))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert len(links) > 8
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (tmp_path / urllib.parse.unquote(link)).exists(), link


def test_html_artifact_is_linked_under_a_name_that_browsers_take_for_html(training: RunRecord, tmp_path: Path) -> None:
    page = written(training, tmp_path)
    assert page.count('href="./reports/train.report.html"') == 2  # at the top and at its task
    assert (tmp_path / "reports" / "train.report.html").read_text() == "<!doctype html><h1>Training</h1>"


def test_same_record_gives_the_same_bytes(training: RunRecord, tmp_path: Path) -> None:
    assert written(training, tmp_path) == written(training, tmp_path)


def test_page_is_self_contained(training: RunRecord, tmp_path: Path) -> None:
    page = Page(written(training, tmp_path))
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"} == set()
    assert "url(http" not in written(training, tmp_path)


def test_states_are_told_by_text_not_by_colour_alone(training: RunRecord, tmp_path: Path) -> None:
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", written(training, tmp_path), re.DOTALL)[0])  # type: ignore[index]
    space = {"s": "http://www.w3.org/2000/svg"}
    texts = ["".join(element.itertext()) for element in svg.iterfind(".//s:text", space)]
    assert texts[:4] == ["✓ ingest", "2.0 s", "✓ train", "6.0 s"]
    assert texts[4:] == ["↷ gate", "skipped, if evaluate-blessed == true", "↷ register", "skipped"]
    labels = [element.get("aria-label") for element in svg.iterfind(".//s:a", space)]
    assert labels[:2] == ["ingest: 2.0 s", "train: 6.0 s"]
    assert len(svg.findall(".//s:path[@class='edge']", space)) == 2


def test_bars_stand_where_and_as_long_as_the_tasks_ran(training: RunRecord, tmp_path: Path) -> None:
    bars = re.findall(r'class="bar (\w+)" style="left:([\d.]+)%;width:([\d.]+)%"', written(training, tmp_path))
    assert bars == [("SUCCEEDED", "0.00", "20.00"), ("SUCCEEDED", "20.00", "60.00")]


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "]]>", "é🙂\u2028"]
)
def test_nothing_from_outside_becomes_markup(text: str, tmp_path: Path) -> None:
    values = Values({text: text}, {text: [artifact(text, text, text, **{text: text})]})
    failed = task(
        text, state=State.FAILED, error=text, condition=text, inputs=values, outputs=values, metrics={text: 1}
    )
    page = Page(
        written(run(failed, pipeline=text, id=text, parameters={text: text}, error=text, outputs=values), tmp_path)
    )
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert text in page.text


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "data:text/html,x", "/etc/passwd", "file:///etc/passwd", "gs://b/x"]
)
def test_only_paths_of_the_run_and_web_pages_are_links(uri: str, tmp_path: Path) -> None:
    page = Page(written(run(task("a", outputs=Values({}, {"x": [artifact("x", uri)]}))), tmp_path))
    assert uri in page.text
    assert not any(uri in (attributes.get("href") or "") for _, attributes in page.tags)


def test_failures_come_first_with_the_component_s_own_words(tmp_path: Path) -> None:
    failed = task("train", state=State.FAILED, error="train: target: no column x. Choose one.", exit_code=65)
    page = Page(written(run(failed, state=State.FAILED), tmp_path))
    text = " ".join(page.text.split())
    assert text.index("train: target: no column x.") < text.index("Graph")
    assert "train: train:" not in text


def test_run_without_tasks_or_ended_early_has_a_page_too(tmp_path: Path) -> None:
    assert "none" in Page(written(run(), tmp_path)).text
    waiting = task("a", state=State.CANCELLED, begin=None, seconds=None)
    assert "1 cancelled" in Page(written(run(waiting, state=State.CANCELLED, error="ended by SIGINT"), tmp_path)).text


def test_many_tasks_start_folded_but_for_those_that_failed(tmp_path: Path) -> None:
    tasks = [task(f"t{i}", state=State.FAILED if i == 3 else State.SUCCEEDED) for i in range(30)]
    page = Page(written(run(*tasks), tmp_path))
    unfolded = [a["id"] for tag, a in page.tags if tag == "details" and "open" in a]
    assert unfolded == ["task-t3"]


def test_outline_nests_by_path_and_puts_producers_first() -> None:
    tasks = [task("b", "a"), task("a"), task("loop", "b", kind="dag"), task("loop.1.x.y"), task("loop.1.x")]
    assert [(each.path, depth) for each, depth in flat(outline(tasks))] == [
        ("a", 0),
        ("b", 0),
        ("loop", 0),
        ("loop.1.x", 1),
        ("loop.1.x.y", 2),
    ]


def test_messages_and_conditions_lose_their_wrapping() -> None:
    assert message(task("a.train", error="train: target: bad")) == "target: bad"
    assert message(task("train")) == "it left no message; see its log"
    assert short(CONDITION) == "evaluate-blessed == true"
