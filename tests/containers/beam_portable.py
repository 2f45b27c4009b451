"""Run in the image penstock/beam: steps whose pipelines a job server on another machine runs, by workers on a third.

python beam_portable.py INPUT OUTPUT; INPUT/source holds files. What machines have in common is the store s3://data, and
for transform the folder /shared.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import fsspec
import grpc
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from penstock.components._shared import beam, beam_workers, places
from penstock.components._shared.errors import UserError
from penstock.components.evaluation.evaluate import evaluate
from penstock.components.ingestion.ingest import ingest
from penstock.components.prediction.predict import predict
from penstock.components.training.fit import fit
from penstock.components.transformation.transform import transform
from penstock.components.validation.validate import validate

STORE = "s3://data"
JOBS, WORKERS = "jobs:8099", "workers:50000"
PORTS = ("train_set", "eval_set", "rejects")
FEATURES = {"fare": "scale", "id": {"bucketize": 4}, "note": {"vocabulary": 5}}
COLUMNS = {"id": "BIGINT", "fare": "DOUBLE"}
DIRECT = {"engine": "beam"}


def options(runner: str, **others: str) -> dict[str, str]:
    given = {"environment_type": "EXTERNAL", "environment_config": WORKERS, "temp_location": f"{STORE}/tmp"}
    return {"runner": runner, "job_endpoint": JOBS, **given, **others}


def there(runner: str, **others: str) -> dict[str, object]:
    return {"engine": "beam", "beam_options": options(runner, **others)}


def publish(folder: Path, uri: str) -> None:
    """Do what a pipeline's launcher does after a step."""
    for name in places.names(str(folder)):
        places.put(folder / name, f"{uri}/{name}")


def main(given: Path, output: Path) -> None:
    files = fsspec.filesystem("s3")
    files.mkdir("data")
    publish(given / "source", f"{STORE}/source")
    for address in (JOBS, WORKERS):
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=120)

    found: dict[str, object] = {}
    query = "SELECT *, fare > 100 AND id % 7 > 2 AS late FROM source"
    arguments = {"query": query, "columns": COLUMNS, "split_keys": ["id"], "eval_fraction": 0.3, "max_bad_rows": 5}
    sets = {port: output / "there" / port for port in PORTS}
    uris = {port: f"{STORE}/run/{port}" for port in PORTS}
    here = [output / "here" / port for port in PORTS]
    found["ingest.here"] = vars(ingest(f"{STORE}/source", *here, **arguments))
    scratch = [Path("/tmp/step", port) for port in PORTS]
    found["ingest.there"] = vars(
        ingest(f"{STORE}/source", *scratch, **arguments, **there("FlinkRunner"), uris=list(uris.values()))
    )
    for folder, port in zip(scratch, PORTS, strict=True):
        found[f"{port}.written"] = sorted(path.name for path in folder.iterdir())
        publish(folder, uris[port])
        places.fetch(uris[port], sets[port])
    data, uri = sets["train_set"], uris["train_set"]

    for name, engine in (("direct", DIRECT), ("there", there("FlinkRunner"))):
        folder = output / "validate" / name
        folder.mkdir(parents=True)
        files_of = [folder / file for file in ("statistics.pb", "schema.pbtxt", "anomalies.pbtxt", "report.html")]
        validate(data, *files_of, **engine, dataset_uri=uri)

    model, model_uri = Path("/tmp/step/model"), f"{STORE}/run/model"
    fit(data, data, model, target="late", framework="lightgbm", features=["id", "fare"], max_rounds=5)
    publish(model, model_uri)
    predict(model, data, output / "predict" / "here", output / "rejects" / "here", keep=["id"])
    outputs = [Path("/tmp/step", name) for name in ("predict", "rejects-of-it")]
    places_of = [f"{STORE}/run/{folder.name}" for folder in outputs]
    predict(model, data, *outputs, keep=["id"], **there("SparkRunner"), uris=[model_uri, uri, *places_of])
    for folder, place, name in zip(outputs, places_of, ("predict", "rejects"), strict=True):
        publish(folder, place)
        places.fetch(place, output / name / "there")

    for name, engine in (("direct", DIRECT), ("there", there("PortableRunner"))):
        place = output / f"evaluate-{name}.json"
        evaluate(model, data, place, place.with_suffix(".html"), slices=["note"], **engine, eval_set_uri=uri)

    for name, engine in (("direct", {}), ("there", {"beam_options": options("FlinkRunner", temp_location="/shared")})):
        folders = [output / "transform" / name / port for port in ("train", "eval", "graph")]
        places_of = [f"{STORE}/run/transformed/{port}" for port in ("train", "eval")]
        both = ((str(sets[port]), uris[port]) for port in ("train_set", "eval_set"))
        transform(*both, *folders, features=FEATURES, keep=["late"], **engine, uris=places_of)
        if name == "there":
            for folder, place in zip(folders, places_of, strict=False):
                publish(folder, place)
                places.fetch(place, folder)

    found["left"] = [*places.names(f"{STORE}/tmp"), *places.names("/shared")]
    found |= refusals(data, uri)
    found["ended"] = ended()
    (output / "found.json").write_text(json.dumps(found))


def refusals(data: Path, uri: str) -> dict[str, str]:
    beam._ANSWER = 1.0
    real = beam_workers.versions()
    with socket.socket() as mute, socket.socket() as free:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        free.bind(("127.0.0.1", 0))
        silent, refusing = (f"127.0.0.1:{each.getsockname()[1]}" for each in (mute, free))

        def spread(work, **others: str) -> None:
            beam.spread(beam.chosen("ingest", "beam", options("FlinkRunner", **others)), [1], work, "/tmp")

        def of_another_version() -> None:
            with patch.object(beam_workers, "versions", lambda: {**real, "Python": "3.9"}):
                spread(abs)

        tried = {
            "silent": lambda: spread(abs, job_endpoint=silent),
            "refusing": lambda: spread(abs, job_endpoint=refusing),
            "no workers": lambda: spread(abs, environment_config="jobs:1"),
            "no address": lambda: spread(abs, environment_config="", environment_options="process_command=x"),
            "versions": of_another_version,
            "lost": lambda: spread(lambda item: os.kill(os.getpid(), signal.SIGKILL)),
            "tensorflow": lambda: transform(
                (str(data), uri), None, *(f"/tmp/t{n}" for n in range(3)), beam_options=options("FlinkRunner")
            ),
        }
        return {name: attempt(work) for name, work in tried.items()}


def attempt(work) -> str:
    try:
        work()
    except UserError as error:
        return str(error)
    return "passes"


ENDLESS = """
import time
from penstock.components._shared import beam
from beam_portable import options
def stay(item):
    time.sleep(600)
beam.spread(beam.chosen("ingest", "beam", options("FlinkRunner")), [1], stay, "/tmp")
"""


def ended() -> dict[str, object]:
    """Return what becomes of a step that is told to end, and of its pipeline."""
    with grpc.insecure_channel(JOBS) as channel:
        jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)

        def states() -> list[str]:
            asked = jobs.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=10)
            return [beam_job_api_pb2.JobState.Enum.Name(job.state) for job in asked.job_info]

        before = len(states())
        process = subprocess.Popen([sys.executable, "-c", ENDLESS], env={**os.environ, "PYTHONPATH": "/tests"})
        while states()[before:] != ["RUNNING"]:
            time.sleep(0.1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while states()[before:] != ["CANCELLED"] and time.monotonic() - began < 60:
            time.sleep(0.1)
        seconds = time.monotonic() - began
        return {"code": process.wait(timeout=60), "seconds": seconds, "states": states()[before:]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
