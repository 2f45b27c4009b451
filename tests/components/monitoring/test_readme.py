"""The example of the stage's README."""

import re
from pathlib import Path

import penstock.components.monitoring

README = (Path(penstock.components.monitoring.__file__).parent / "README.md").read_text()


def test_the_call_from_python_runs(make_dataset, tmp_path, monkeypatch, capsys):
    [text] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for name in ("this_week", "train_set"):
        (tmp_path / name).symlink_to(make_dataset({"n": [1, 2]}))
    monkeypatch.chdir(tmp_path)
    exec(text, {})
    assert capsys.readouterr().out == "() ()\n"
