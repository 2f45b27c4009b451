"""The example of the stage's README."""

import re
from pathlib import Path

import numpy as np

import penstock.components.prediction
from penstock.components.training.fit import fit

README = (Path(penstock.components.prediction.__file__).parent / "README.md").read_text()


def test_the_call_from_python_runs(make_dataset, tmp_path, monkeypatch, capsys):
    [text] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    miles = np.arange(60.0)
    data = make_dataset({"id": np.arange(60), "miles": miles, "fare": 2 * miles})
    fit(data, data, tmp_path / "model", target="fare", features=["miles"], max_rounds=2)
    (tmp_path / "rows").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    exec(text, {})
    assert capsys.readouterr().out == "60 0\n"
