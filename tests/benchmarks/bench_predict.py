"""predict_batch (verified in, keys kept, sealed out) beside the bare framework on Arrow batches of the same rows."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
ROWS = 4_000_000
FEWER = 1_000_000
TURNS = 3
QUERY = """
SELECT i AS id, {numbers},
       chr((97 + hash(i, 90) % 26)::INTEGER) AS zone
FROM range({rows}) t(i)
"""
NUMBERS = ", ".join(f"(hash(i, {k}) % 100000 / 100.0)::DOUBLE AS n{k}" for k in range(10))


def run(scratch: Path) -> list[dict]:
    measure("write", scratch / "few", str(FEWER))
    measure("write", scratch / "many", str(ROWS))
    measure("train", scratch / "few", scratch / "model")
    ours, bare = [], []
    for _ in range(TURNS):  # in turn, so that a slow minute of the machine meets both
        bare.append(measure("bare", scratch / "model", scratch / "many")["seconds"])
        ours.append(measure("predict", scratch / "model", scratch / "many", scratch / "out"))
    fewer = measure("predict", scratch / "model", scratch / "few", scratch / "out")["bytes"]
    seconds, baseline, peak = (
        median(each["seconds"] for each in ours),
        median(bare),
        max(each["bytes"] for each in ours),
    )
    return [
        {
            "name": f"predict_batch, {ROWS:,} rows × 11 columns, beside XGBoost alone on Arrow batches",
            "ours": ROWS / seconds,
            "baseline": ROWS / baseline,
            "unit": "rows/s",
            "ratio": baseline / seconds,
            "goal": "at least 0.8",
            "met": baseline / seconds >= 0.8,
        },
        {
            "name": f"predict_batch, peak memory of {ROWS:,} rows beside {FEWER:,}",
            "ours": peak / 2**30,
            "baseline": fewer / 2**30,
            "unit": "GiB",
            "ratio": peak / fewer,
            "goal": "at most 1.3 times",
            "met": peak <= 1.3 * fewer,
        },
    ]


def measure(*command: str | Path) -> dict:
    """Run one of the jobs below in a process of its own; return its seconds, without imports, and its peak memory."""
    program = [sys.executable, "-m", "tests.benchmarks.bench_predict", *command]
    return json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout.splitlines()[-1])


def write(folder: str, rows: str) -> None:
    import duckdb

    from penstock.components._shared.dataset import write_dataset

    with duckdb.connect() as connection:
        reader = connection.execute(QUERY.format(numbers=NUMBERS, rows=rows)).to_arrow_reader(100_000)
        write_dataset(folder, reader.schema, reader)


def train(folder: str, model: str) -> None:
    from penstock.components.training.fit import fit

    fit(folder, folder, model, target="n0", exclude=["id"], max_rounds=100)


def bare(model: str, folder: str) -> None:
    """Read, predict and write as one would with XGBoost and Arrow alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import xgboost

    booster = xgboost.Booster(model_file=f"{model}/model.ubj")
    features = json.loads(Path(model, "features.json").read_text())["features"]
    names = [feature["name"] for feature in features]
    letters = next(feature["categories"] for feature in features if feature["kind"] == "category")
    schema = pa.schema([("id", pa.int64()), ("prediction", pa.float32())])
    with pq.ParquetWriter(f"{folder}.bare.parquet", schema) as out:
        for batch in pq.ParquetFile(f"{folder}/part-00000.parquet").iter_batches(131_072, columns=["id", *names]):
            frame = batch.select(names).to_pandas()
            frame["zone"] = frame["zone"].astype("category").cat.set_categories(letters).cat.codes
            found = booster.inplace_predict(frame.to_numpy(dtype="float64"), validate_features=False)
            out.write_batch(pa.record_batch([batch["id"], pa.array(found)], schema=schema))


def predict(model: str, folder: str, out: str) -> None:
    from penstock.components.prediction.predict import predict

    assert predict(model, folder, f"{out}/predictions", f"{out}/rejects", keep=["id"]).bad_rows == 0


def main(name: str, *arguments: str) -> None:
    jobs = {job.__name__: job for job in (write, train, bare, predict)}
    import pyarrow.parquet  # noqa: F401 - what all import is not what is compared
    import xgboost  # noqa: F401

    import penstock.components.prediction.predict  # noqa: F401

    start = time.perf_counter()
    jobs[name](*arguments)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
