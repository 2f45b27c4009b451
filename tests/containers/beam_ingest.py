"""Run in the image penstock/beam: files ingested and rows predicted on one machine and on Beam, for a test to compare.

python beam_ingest.py CASES OUTPUT; CASES/NAME/arguments.json says what ingest is given beside CASES/NAME/source, what
model is to predict the rows, if any, whether two processes are tried, too, and the least bytes of a piece, where files
are to be divided that are not large.
"""

import json
import sys
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components.ingestion import pieces
from penstock.components.ingestion.ingest import ingest
from penstock.components.prediction.predict import predict
from penstock.components.training.fit import fit

ENGINES = {
    "local": {},
    "one": {"engine": "beam", "beam_options": {"runner": "DirectRunner"}},
    "two": {
        "engine": "beam",
        "beam_options": {
            "runner": "DirectRunner",
            "direct_num_workers": 2,
            "direct_running_mode": "multi_processing",
        },
    },
}
LEAST = pieces.LEAST
PORTS = ("train_set", "eval_set", "rejects")


def main(cases: Path, output: Path) -> None:
    found = {}
    for case in sorted(cases.iterdir()):
        arguments = json.loads((case / "arguments.json").read_text())
        model = arguments.pop("model", None)
        pieces.LEAST = arguments.pop("least", LEAST)
        engines = {name: options for name, options in ENGINES.items() if name != "two" or arguments.pop("two", False)}
        for name, options in engines.items():
            folder = output / case.name / name
            found[f"{case.name}.{name}"] = attempt(
                ingest, str(case / "source"), *(folder / port for port in PORTS), **arguments, **options
            )
        if not model:
            continue
        rows, made = output / case.name / "local" / "train_set", output / case.name / "model"
        fit(rows, rows, made, max_rounds=5, **model)
        for name, options in engines.items():
            folder = output / case.name / name
            found[f"{case.name}.{name}.predicted"] = attempt(
                predict, made, rows, folder / "predictions", folder / "bad", keep=["*"], max_bad_rows=10, **options
            )
    (output / "found.json").write_text(json.dumps(found))


def attempt(step, *given, **arguments):
    try:
        return vars(step(*given, **arguments))
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
