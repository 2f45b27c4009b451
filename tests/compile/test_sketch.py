"""A drawing shows every task in its scope, what it waits for, and when it runs; it is valid whatever names hold."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from click.testing import CliRunner
from kfp import dsl

from penstock.compile import from_kfp, sketch
from penstock.compile.cli import penstock
from penstock.compile.errors import PenstockError
from penstock.compile.to_kfp import compiled
from tests.compile.test_sharing import scope, spec

SPACE = {"s": "http://www.w3.org/2000/svg"}


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(rows: int) -> int:
    return rows


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def clean():
    pass


@dsl.pipeline(name="inner")
def inner(rows: int = 1):
    make(rows=rows)


@dsl.pipeline(name="everything")
def everything(rows: int = 1, items: list = [1, 2]):  # noqa: B006
    with dsl.ExitHandler(clean()):
        first = make(rows=rows)
        with dsl.If(first.output > 5):
            make(rows=1)
        with dsl.Elif(first.output > 3):
            make(rows=2)
        with dsl.Else():
            make(rows=3)
        with dsl.ParallelFor(items, parallelism=2) as item:
            make(rows=item).after(first)
        inner(rows=first.output).set_caching_options(False)
        make(rows=rows).after(first)


PIPELINE = from_kfp.parse(compiled(everything).text)


def flat(forest):
    for node in forest:
        yield node
        yield from flat(node.children)


def test_every_task_is_drawn_once_with_words_for_when_it_runs():
    nodes = {node.path: node for node in flat(sketch.nodes(PIPELINE))}
    assert set(nodes) == {path for path, _ in PIPELINE.walk()}
    details = [node.detail for node in nodes.values() if node.detail]
    assert sorted(details) == [
        "2 at a time, for each of input items",
        "also after failures",
        "else",
        "else if int(make.Output) > 3",
        "if int(make.Output) > 5",
    ]
    styles = {node.style for node in nodes.values()}
    assert styles == {"task", "loop", "condition", "exit", "pipeline"}


def test_data_and_order_are_told_apart():
    text = sketch.mermaid(PIPELINE)
    names = dict(re.findall(r'(t\d+)\["(?:. )?([^"<]*)', text))
    solid = {(names[a], names[b]) for a, b in re.findall(r"(t\d+) --> (t\d+)", text)}
    dotted = {(names[a], names[b]) for a, b in re.findall(r"(t\d+) -\.-> (t\d+)", text)}
    assert ("make", "inner") in solid
    assert ("make", "make-6") in dotted
    assert ("exit-handler-1", "clean") in dotted
    assert solid & dotted == set()
    svg = ElementTree.fromstring(sketch.svg(PIPELINE))
    assert svg.findall(".//s:path[@class='edge']", SPACE)
    assert svg.findall(".//s:path[@class='edge waits']", SPACE)


def test_a_drawing_stands_alone_in_light_and_dark_and_is_the_same_each_time():
    text = sketch.svg(PIPELINE)
    svg = ElementTree.fromstring(text)
    assert svg.find("s:title", SPACE).text == "everything"
    assert "prefers-color-scheme: dark" in svg.find("s:style", SPACE).text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|@import", text)
    # Every colour that is used is defined in it.
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(re.findall(r"(--\w+):", text))
    assert sketch.svg(from_kfp.parse(compiled(everything).text)) == text
    assert not any("href" in name for element in svg.iter() for name in element.attrib)


AWKWARD = [
    'a"b',
    "end",
    "x<y>&z",
    "<script>alert(1)",
    "`c`",
    "#35;",
    "subgraph x",
    "--> y",
    "日本",
    "%%{init}%%",
]


def awkward():
    tasks = [f"{name}: a" for name in AWKWARD]
    fields = {name: {"taskInfo": {"name": f"{name}\n{name}"}} for name in AWKWARD}
    return from_kfp.parse(json.dumps(spec(scope(*tasks, **fields), a="i")))


def test_names_of_any_kind_make_no_markup():
    svg = ElementTree.fromstring(sketch.svg(awkward()))
    assert len(svg.findall(".//s:rect[@class='box']", SPACE)) == len(AWKWARD)
    assert not svg.findall(".//s:script", SPACE)
    text = sketch.mermaid(awkward())
    assert text.count("\n") == len(AWKWARD) + 1
    for line in text.splitlines()[1:]:
        assert re.fullmatch(r'  t\d+\["[^"<>`&]*"\]', line), line
        assert not re.search(r"#(?!\d+;)", line)


def test_what_is_too_large_for_mermaid_is_refused_with_the_way_out():
    tasks = {f"t{i}": {"dependentTasks": [f"t{i - 1}"]} if i else {} for i in range(600)}
    pipeline = from_kfp.parse(json.dumps(spec(scope(*(f"{name}: a" for name in tasks), **tasks), a="i")))
    with pytest.raises(PenstockError, match=r"599 edges, of at most 50,000 and 500; draw it with --draw svg"):
        sketch.mermaid(pipeline)
    assert ElementTree.fromstring(sketch.svg(pipeline)) is not None


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(compiled(everything).text)
    return path


def call(*arguments):
    return CliRunner().invoke(penstock, ["describe", *map(str, arguments)])


def test_the_command_writes_to_a_file_or_stdout(written, tmp_path):
    target = tmp_path / "graph.svg"
    assert call(written, "--draw", "svg", "--output", target).output == ""
    assert call(written, "--draw", "svg").output == target.read_text() == sketch.svg(PIPELINE)
    assert call(written, "--draw", "mermaid").output == sketch.mermaid(PIPELINE)
    assert call(written, "--draw", "svg", "--json").exit_code == 2
    assert call(written, "--output", target).exit_code == 2


@pytest.mark.corpus
def test_pipelines_of_others_are_drawn(kfp_specs):
    for path in sorted((kfp_specs / "valid").rglob("*.yaml")):
        pipeline = from_kfp.read(path)
        svg = ElementTree.fromstring(sketch.svg(pipeline))
        boxes = [each for each in svg.iter() if each.get("class") in ("box", "group")]
        assert len(boxes) == len(list(pipeline.walk())), path
        assert sketch.mermaid(pipeline).startswith("flowchart TD\n")


PARSE = """
import { JSDOM } from "jsdom"; import fs from "fs";
globalThis.window = new JSDOM("").window; globalThis.document = window.document;
const mermaid = (await import("mermaid")).default;
for (const file of process.argv.slice(2)) await mermaid.parse(fs.readFileSync(file, "utf8"));
"""


@pytest.mark.slow
def test_mermaid_s_own_parser_takes_it(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "mermaid@11", "jsdom@26"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"npm cannot install mermaid: {installed.stderr[-200:]}")
    (tmp_path / "parse.mjs").write_text(PARSE)
    for name, pipeline in (("all", PIPELINE), ("awkward", awkward())):
        (tmp_path / f"{name}.mmd").write_text(sketch.mermaid(pipeline))
    done = subprocess.run(
        ["node", "parse.mjs", "all.mmd", "awkward.mmd"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
