"""explain on rows of 18 columns beside XGBoost's own pred_contribs and shap's TreeExplainer on the same rows in memory.

PENSTOCK_BENCH_EXPLAIN_ROWS sets the number of rows, 100,000 if it is not set.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROWS = int(os.environ.get("PENSTOCK_BENCH_EXPLAIN_ROWS", 100_000))
COLUMNS = 18
TURNS = 3
MIB = 2**20


def run(scratch: Path) -> list[dict]:
    measure("prepare", scratch, str(ROWS))
    ours, contribs, tree_shap, report = [], [], [], []
    for _ in range(TURNS):
        contribs.append(measure("contribs", scratch)["seconds"])
        tree_shap.append(measure("tree_shap", scratch)["seconds"])
        found = measure("explain", scratch, "rows")
        ours.append(found["attributions"])
        report.append(found["seconds"] - found["attributions"])
    seconds, fastest, rest = median(ours), min(median(contribs), median(tree_shap)), median(report)
    few = measure("explain", scratch, "few")["bytes"]
    many = measure("explain", scratch, "rows")["bytes"]
    what = f"explain {ROWS:,} rows × {COLUMNS} columns"
    return [
        {
            "name": f"{what}: attributions read, checked and written, beside the faster of pred_contribs and TreeSHAP",
            "ours": seconds,
            "baseline": fastest,
            "unit": "s",
            "ratio": seconds / fastest,
            "goal": "at most 1.2 times",
            "met": seconds <= 1.2 * fastest,
        },
        {
            "name": f"{what}: importance, dependence, single rows and the report",
            "ours": rest,
            "baseline": None,
            "unit": "s",
            "ratio": None,
            "goal": "–",
            "met": None,
        },
        {
            "name": f"explain: memory that {ROWS:,} rows take beyond {ROWS // 4:,}",
            "ours": (many - few) / MIB,
            "baseline": None,
            "unit": "MiB",
            "ratio": None,
            "goal": "at most 64 MiB",
            "met": many - few <= 64 * MIB,
        },
    ]


def measure(*command: str | Path) -> dict:
    """Run one of the jobs below in a process of its own; return its seconds, without imports, and its peak memory."""
    return json.loads(subprocess.run([sys.executable, __file__, *command], check=True, stdout=subprocess.PIPE).stdout)


def prepare(folder: str, rows: str) -> dict:
    import numpy as np
    import pyarrow as pa

    from penstock.components._shared.dataset import write_dataset
    from penstock.components.training.fit import fit

    for name, count, seed in (("train", 40_000, 1), ("rows", int(rows), 2), ("few", int(rows) // 4, 3)):
        random = np.random.default_rng(seed)
        numbers = random.normal(size=(count, COLUMNS - 2))
        zones = np.array([f"z{zone}" for zone in range(60)])[random.integers(0, 60, count)]
        days = np.array(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])[random.integers(0, 7, count)]
        score = numbers[:, 0] * numbers[:, 1] + np.sin(2 * numbers[:, 2]) + 0.5 * (zones < "z3") + numbers[:, 3]
        table = pa.table(
            {f"n{place}": numbers[:, place] for place in range(COLUMNS - 2)}
            | {"zone": zones, "day": days, "label": score + random.normal(size=count) > 0}
        )
        write_dataset(Path(folder, name), table.schema, table.to_batches())
    fit(Path(folder, "train"), Path(folder, "few"), Path(folder, "model"), target="label", max_rounds=100)
    return {}


def _in_memory(folder: str) -> tuple:
    import pyarrow.parquet as pq
    import xgboost

    from penstock.components._shared.model import load_model

    model = load_model(Path(folder, "model"), "bench", "model")
    matrix = model.matrix(pq.read_table(next(Path(folder, "rows").glob("*.parquet"))).to_pandas())
    return xgboost.Booster(model_file=str(Path(folder, "model", "model.ubj"))), matrix


def contribs(folder: str) -> dict:
    import xgboost

    booster, matrix = _in_memory(folder)
    start = time.perf_counter()
    rows = xgboost.DMatrix(matrix, feature_names=booster.feature_names, feature_types=booster.feature_types)
    booster.predict(rows, pred_contribs=True)
    return {"seconds": time.perf_counter() - start}


def tree_shap(folder: str) -> dict:
    import shap
    import xgboost

    booster, matrix = _in_memory(folder)
    start = time.perf_counter()
    explainer = shap.TreeExplainer(booster)
    # Of numbers alone it takes an array; of categories a DMatrix that says which they are.
    rows = xgboost.DMatrix(matrix, feature_names=booster.feature_names, feature_types=booster.feature_types)
    explainer.shap_values(rows, check_additivity=False)
    return {"seconds": time.perf_counter() - start}


def explain(folder: str, rows: str) -> dict:
    import penstock.components.explanation.explain as logic

    spent = {}
    write = logic.write_dataset

    def timed(*arguments: object) -> None:
        start = time.perf_counter()
        write(*arguments)
        spent["attributions"] = time.perf_counter() - start

    logic.write_dataset = timed
    began = time.perf_counter()
    outputs = (Path(folder, "outputs", name) for name in ("attributions", "explanation", "vertex", "report"))
    found = logic.explain(Path(folder, "model"), Path(folder, rows), *outputs, slices=["day"])
    assert found.additive
    return {"seconds": time.perf_counter() - began, **spent}


def main(name: str, *arguments: str) -> None:
    jobs: dict[str, Callable[..., dict]] = {
        "prepare": prepare,
        "contribs": contribs,
        "tree_shap": tree_shap,
        "explain": explain,
    }
    if name != "prepare":  # what all import is not what is compared
        import xgboost  # noqa: F401

        import penstock.components.explanation.explain  # noqa: F401
        from penstock.components.explanation.explainers import xgboost as _  # noqa: F401
    if name == "tree_shap":
        import shap  # noqa: F401
    found = jobs[name](*arguments)
    print(json.dumps({**found, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
