"""Predicts lines of JSON in a batch deployment of Azure ML, which runs this file alone: nothing of Penstock is there.

Azure ML calls init() once a process, and run() with the paths of some files. The model's own code, which travels in its
folder, predicts; the predictions go beside each other into the folder that Azure ML names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

KEY = "penstock_row"
AT_ONCE = 65_536  # rows

_model: Any = None


def init() -> None:
    """Load the model, once it is seen to be the one that is meant."""
    global _model
    root = Path(os.environ["AZUREML_MODEL_DIR"])
    found = [file.parent for file in sorted(root.rglob("MLmodel"))]
    if not found:
        raise ValueError(f"{root} holds no MLflow model")
    folder, wanted = found[0], os.environ["PENSTOCK_MODEL_ID"]
    if f"model_uuid: {wanted}\n" not in (folder / "MLmodel").read_text(encoding="utf-8"):
        raise ValueError(f"the model of this deployment is another one than {wanted}, which was given to predict_batch")
    [code] = (folder / "code").glob("penstock_tabular_*.py")
    sys.path.insert(0, str(code.parent))
    _model = importlib.import_module(code.stem).Predictor(folder)


def run(mini_batch: list[str]) -> list[str]:
    """Predict the rows of some files; returns their paths, of which Azure ML counts the successes."""
    for path in mini_batch:
        target = Path(os.environ["AZUREML_BI_OUTPUT_PATH"], f"{Path(path).stem}-{uuid.uuid4().hex}.part")
        with open(path, encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
            waiting: list[dict[str, Any]] = []
            for line in lines:
                waiting.append(json.loads(line))
                if len(waiting) == AT_ONCE:
                    _predict(waiting, out)
                    waiting = []
            _predict(waiting, out)
        # A whole file or none: a mini-batch that failed is tried again.
        target.rename(target.with_name(f"{Path(path).stem}.jsonl"))
    return list(mini_batch)


def _predict(rows: list[dict[str, Any]], out: Any) -> None:
    import pandas as pd

    if not rows:
        return
    found = _model.predict(pd.DataFrame(rows))
    for row, values in zip(rows, found.tolist(), strict=True):
        if _model.classes:
            names = (f"probability_{_text(label)}" for label in _model.classes)
            prediction = dict(zip(names, values, strict=True))
        else:
            prediction = {"prediction": values}
        # NaN, which JSON does not have, is no prediction.
        known = {name: value for name, value in prediction.items() if abs(value) < float("inf")}
        out.write(json.dumps({"key": row[KEY], "prediction": known if len(known) == len(prediction) else None}) + "\n")


def _text(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
