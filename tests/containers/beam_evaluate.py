"""Run in the image penstock/beam: models are evaluated on this machine and on Beam.

python beam_evaluate.py INPUT OUTPUT; INPUT holds a folder by case with model, eval_set and case.json.
"""

import json
import sys
from pathlib import Path

from penstock.components._shared.errors import UserError
from penstock.components.evaluation.evaluate import evaluate


def main(given: Path, output: Path) -> None:
    for case in sorted(given.iterdir()):
        asked = json.loads((case / "case.json").read_text())
        for engine in ("local", "beam"):
            place = output / f"{case.name}-{engine}.json"
            try:
                evaluate(
                    case / "model",
                    case / "eval_set",
                    place,
                    place.with_suffix(".html"),
                    engine=engine,
                    bootstrap_samples=0,
                    **asked,
                )
            except UserError as error:
                place.write_text(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
