"""A round of a Keras network over rows streamed from Parquet, beside Keras's own model.fit on arrays in memory.

Both fit the same layers on the same rows in batches of 1,024, without an evaluation set; what a round takes is the time
of several less that of one. Beside it the peak memory of four times the rows.

PENSTOCK_BENCH_KERAS_ROWS sets the number of rows, 500,000 if it is not set.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROWS = int(os.environ.get("PENSTOCK_BENCH_KERAS_ROWS", 500_000))
ROUNDS = 4
GROUP = 122_880  # rows of a row group, as ingest writes them
MIB = 2**20


def run(scratch: Path) -> list[dict]:
    few, many = scratch / "few", scratch / "many"
    write(few, ROWS)
    write(many, 4 * ROWS)
    ours, bare = measure("streamed", few), measure("in_memory", few)
    peak = measure("streamed", many)["bytes"]
    return [
        {
            "name": f"keras, rows streamed from Parquet ({ROWS:,} rows x 11 columns), beside model.fit on arrays",
            "ours": ours["rate"],
            "baseline": bare["rate"],
            "unit": "rows/s",
            "ratio": ours["rate"] / bare["rate"],
            "goal": "at least 0.9 times",
            "met": ours["rate"] >= 0.9 * bare["rate"],
        },
        {
            "name": "keras: peak memory of 4 times the rows, beside that of once",
            "ours": peak / MIB,
            "baseline": ours["bytes"] / MIB,
            "unit": "MiB",
            "ratio": peak / ours["bytes"],
            "goal": "at most 1.5 times",
            "met": peak <= 1.5 * ours["bytes"],
        },
    ]


def measure(*command: str | Path) -> dict:
    """Run one of the jobs below in a process of its own; return its rows a second and its peak memory."""
    return json.loads(subprocess.run([sys.executable, __file__, *command], check=True, stdout=subprocess.PIPE).stdout)


def write(folder: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from penstock.components._shared.dataset import KIND
    from penstock.components._shared.sealed import new_folder, seal

    random = np.random.default_rng(0)
    zones = np.array([str(number) for number in range(265)])
    with new_folder(folder) as dataset:
        file = None
        for first in range(0, rows, GROUP):
            count = min(GROUP, rows - first)
            columns = {f"x{place}": random.normal(size=count) for place in range(9)}
            columns |= {f"zone{place}": zones[random.integers(0, 265, count)] for place in range(2)}
            table = pa.table({**columns, "y": columns["x0"] * columns["x1"] > 0})
            file = file or pq.ParquetWriter(dataset / "part-00000.parquet", table.schema)
            file.write_table(table)
        file.close()
        schema = [{"name": field.name, "type": str(field.type)} for field in table.schema]
        seal(dataset, KIND, {"rows": rows, "schema": schema, "fingerprint": "synthetic"})


def prepared(folder: str, rounds: int):
    from penstock.components._shared.fitting.prepare import Settings, prepare

    settings = Settings(target="y", framework="keras", max_rounds=rounds, early_stopping_rounds=0)
    return prepare(folder, folder, settings, {"batch_size": 1024})


def seconds_a_round(fit: Callable[[int], None]) -> float:
    """Return the time of ROUNDS + 1 rounds less that of one: what comes before and after is in both."""
    times = []
    for rounds in (1, 1 + ROUNDS):
        start = time.perf_counter()
        fit(rounds)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / ROUNDS


def streamed(folder: str) -> float:
    import dataclasses

    def fit(rounds: int) -> None:
        found = prepared(folder, rounds)
        found.row.fit(dataclasses.replace(found.job, eval=None))

    return seconds_a_round(fit)


def in_memory(folder: str) -> float:
    import numpy as np

    from penstock.components._shared.fitting.frameworks import keras as ours

    found = prepared(folder, 1)
    parts = [found.job.train.read(place) for place in range(found.job.train.count)]
    matrix, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("matrix", "labels"))
    scale = ours._adapt(found.job, found.job.train)

    def fit(rounds: int) -> None:
        model = ours._encoded(found.job, scale)
        model.compile("adam", ours.keras.losses.BinaryCrossentropy())
        model.fit(matrix, labels, batch_size=1024, epochs=rounds, verbose=0)

    return seconds_a_round(fit)


def main(name: str, folder: str) -> None:
    import pyarrow.parquet as pq

    rows = pq.ParquetFile(Path(folder) / "part-00000.parquet").metadata.num_rows
    seconds = {"streamed": streamed, "in_memory": in_memory}[name](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rate": rows / seconds, "bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
