"""The statistics of validate beside TensorFlow Data Validation on Beam, in one run in the image that has both.

PENSTOCK_BENCH_BEAM_ROWS sets the number of rows, 1 million if it is not set.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from penstock.compile import images
from penstock.compile.errors import PenstockError
from penstock.compile.targets.local.containers import available
from tests.benchmarks import bench_validate

ROOT = Path(__file__).parents[2]
ROWS = int(os.environ.get("PENSTOCK_BENCH_BEAM_ROWS", 1_000_000))
BOTH = """
import json, time
import tensorflow_data_validation
from penstock.components._shared import beam
from penstock.components._shared.dataset import open_dataset
from penstock.components.validation.beam_statistics import PACKAGE, describe_on_beam
from penstock.components.validation.statistics import describe
data = open_dataset("/dataset", "bench", "dataset")
engine = beam.chosen("bench", "beam", beam.DIRECT, PACKAGE)
began = time.perf_counter()
describe(data)
between = time.perf_counter()
describe_on_beam(data, engine, None, "/tmp")
print(json.dumps([between - began, time.perf_counter() - between]))
"""


def run(scratch: Path) -> list[dict]:
    if reason := available():
        print(f"{reason}: Beam is not measured", file=sys.stderr)
        return []
    try:
        with images.Engine(lambda line: None) as engine:
            image = engine.build(images.environments(ROOT, ["beam"])[0]).name
    except PenstockError as error:
        print(f"{error}: Beam is not measured", file=sys.stderr)
        return []
    bench_validate.ROWS = ROWS
    bench_validate.write(str(scratch / "dataset"))
    scratch.chmod(0o755)  # of others than who made it
    command = ["docker", "run", "--rm", "--network", "none", "-e", "_KFP_RUNTIME=true"]
    command += ["-v", f"{scratch}/dataset:/dataset:ro", image, "python3", "-c", BOTH]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    ours, theirs = json.loads(said.splitlines()[-1])
    return [
        {
            "name": f"statistics of {ROWS:,} rows × 18 columns, beside TFDV on Beam",
            "ours": ours,
            "baseline": theirs,
            "unit": "s",
            "ratio": ours / theirs,
            "goal": "faster",
            "met": ours < theirs,
        }
    ]
