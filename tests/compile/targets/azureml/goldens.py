"""The goldens of converted pipelines: the YAML whole, of the other files the SHA-256. `make golden` writes them.

The programs in each snapshot are listed by name alone: they are the same in all, and tested where they are written.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from penstock.compile import catalog, from_kfp
from penstock.compile.targets.azureml import convert, emit
from penstock.compile.to_kfp import compiled

FOLDER = Path(__file__).parents[3] / "golden" / "azureml"
MANIFEST = "files.txt"


def names() -> list[str]:
    """Return the pipelines of this project."""
    return [entry.name for entry in catalog.entries("pipeline") if entry.package == "penstock"]


def golden(name: str) -> dict[str, str]:
    """Return the golden files of a pipeline by path; where it is refused, the reasons."""
    done = convert.convert(from_kfp.parse(compiled(catalog.find(name).function).text))
    if done.refused:
        return {"refused.txt": "".join(f"{found.code}: {found}\n" for found in done.findings)}
    found = {path: content.decode() for path, content in done.files.items() if path.endswith(".yml")}
    lines = []
    for path, content in sorted(done.files.items()):
        is_program = path.rpartition("/")[2] in emit.shipped()
        lines.append(f"{'-' * 64 if is_program else hashlib.sha256(content).hexdigest()}  {path}\n")
    found[MANIFEST] = "".join(lines)
    found["findings.txt"] = "".join(f"{each.severity}[{each.code}] {each}\n" for each in done.findings)
    return found


def main() -> None:
    """Write the goldens of all pipelines anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in names():
        for path, text in golden(name).items():
            target = FOLDER / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
