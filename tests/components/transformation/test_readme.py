"""The examples of the README compile to tasks in the images that they name."""

import re
from pathlib import Path

from penstock.compile.ports import parse_spec
from penstock.compile.to_kfp import compiled
from penstock.components.images import image

README = Path(__file__).parents[3] / "components" / "transformation" / "README.md"


def test_the_pipelines_of_the_readme_run_in_the_images_that_have_what_they_need(tmp_path, monkeypatch):
    examples = [text for text in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "@dsl" in text]
    (tmp_path / "prepared_example.py").write_text(examples[0])
    (tmp_path / "carried_example.py").write_text(examples[1])
    monkeypatch.syspath_prepend(tmp_path)
    import carried_example
    import prepared_example

    for pipeline, wanted in (
        (prepared_example.prepared, {"transform": image("beam")}),
        (
            carried_example.carried,
            {"transform": image("beam"), "train": image("tensorflow"), "evaluate": image("tensorflow")},
        ),
    ):
        spec = parse_spec(compiled(pipeline).text, "example")
        executors = spec["deploymentSpec"]["executors"]
        used = {name.removeprefix("exec-"): body["container"]["image"] for name, body in executors.items()}
        assert wanted.items() <= used.items()
