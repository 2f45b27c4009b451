"""The example of the README compiles to tasks in the images that it names."""

import re
from pathlib import Path

from penstock.compile import rewrites
from penstock.compile.ports import parse_spec
from penstock.compile.to_kfp import compiled
from penstock.components.images import image

README = Path(__file__).parents[3] / "components" / "training" / "README.md"


def test_the_example_of_a_network_runs_in_the_image_that_has_tensorflow(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "network.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    import network

    spec = parse_spec(compiled(network.network).text, "network")
    executors = spec["deploymentSpec"]["executors"]
    used = {name.removeprefix("exec-"): body["container"]["image"] for name, body in executors.items()}
    assert used == {"ingest": image("tabular"), "train": image("tensorflow"), "evaluate": image("tensorflow")}
    assert set(rewrites.images(spec)) == {image("tabular"), image("tensorflow")}
