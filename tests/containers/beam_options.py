"""Run in the image penstock/beam: what is said of Beam's options, what two processes make of statistics, what ends it.

python beam_options.py CASES OUTPUT
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from penstock.components._shared import beam
from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.validation.beam_statistics import PACKAGE, describe_on_beam

OPTIONS = {
    "misspelled": {"direct_num_wokers": 2},
    "unknown": {"colour": "blue"},
    "no_number": {"direct_num_workers": "many"},
    "no_choice": {"direct_running_mode": "slowly"},
}
ENDLESS = """
import sys, time, apache_beam
from penstock.components._shared import beam
def stay(x):
    print("started", flush=True)
    time.sleep(600)
beam.run(beam.chosen("validate", "beam", beam.DIRECT), lambda p: p | apache_beam.Create([1]) | apache_beam.Map(stay))
"""


def main(cases: Path, output: Path) -> None:
    found = {name: attempt(options) for name, options in OPTIONS.items()}
    data = open_dataset(cases / "dataset", "test", "dataset")
    for name, options in {
        "one": {},
        "processes": {"direct_num_workers": 2, "direct_running_mode": "multi_processing"},
    }.items():
        engine = beam.chosen("validate", "beam", {**beam.DIRECT, **options}, PACKAGE)
        (output / f"{name}.pb").write_bytes(describe_on_beam(data, engine, None, "/tmp").SerializeToString())
    found["ended"] = ended()
    (output / "found.json").write_text(json.dumps(found))


def attempt(options: dict) -> str:
    engine = beam.chosen("validate", "beam", {**beam.DIRECT, **options})
    try:
        beam.run(engine, lambda pipeline: None)
    except UserError as error:
        return str(error)
    return "runs"


def ended() -> list:
    """Return the exit code of a step that is told to end while a pipeline runs, and whether it took ten seconds."""
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, env=os.environ, text=True)
    assert process.stdout.readline() == "started\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    return [process.wait(timeout=60), time.monotonic() - began < 10]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
