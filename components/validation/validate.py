"""Describe a dataset, hold it to a schema, and write down what came of it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics, DatasetFeatureStatisticsList

from penstock.components._shared import beam
from penstock.components._shared.dataset import Dataset, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.messages import read_statistics
from penstock.components.validation import files, render, schemas
from penstock.components.validation.anomalies import Baselines, Verdict, find
from penstock.components.validation.beam_statistics import PACKAGE, describe_on_beam
from penstock.components.validation.inference import infer
from penstock.components.validation.statistics import describe

_NAMED_ANOMALIES = 3


@dataclass(frozen=True)
class Validated:
    """What came of a validation.

    Attributes:
        valid: Whether there are no anomalies.
        anomaly_count: Demands of the schema that the data break.
        warnings: Demands of the schema that were not checked, one line each.
    """

    valid: bool
    anomaly_count: int
    warnings: tuple[str, ...] = ()


def validate(
    dataset: str | os.PathLike[str],
    statistics: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    anomalies: str | os.PathLike[str],
    report: str | os.PathLike[str],
    *,
    given_schema: str | os.PathLike[str] | None = None,
    previous_statistics: str | os.PathLike[str] | None = None,
    serving_statistics: str | os.PathLike[str] | None = None,
    schema_uri: str = "",
    environment: str = "",
    on_anomaly: str = "fail",
    engine: str = beam.LOCAL,
    beam_options: Mapping[str, Any] = beam.DIRECT,
    dataset_uri: str = "",
) -> Validated:
    """Describe a dataset and hold it to a schema; every output is written before anomalies fail the run.

    Args:
        dataset: Folder of the rows.
        statistics: File to write: DatasetFeatureStatisticsList, binary.
        schema: File to write: Schema that the rows were held to, text.
        anomalies: File to write: Anomalies, text.
        report: File to write: HTML page.
        given_schema: Schema to hold the rows to. None, and no schema_uri: it is inferred from the rows.
        previous_statistics: Statistics of an earlier dataset, for drift comparators.
        serving_statistics: Statistics of serving data, for skew comparators.
        schema_uri: Path or URI of a schema, in place of given_schema.
        environment: Environment of the schema that the rows belong to. Empty: all features are expected.
        on_anomaly: "fail" to raise on anomalies, "report" to return.
        engine: "local" or "beam"; what is computed there are the statistics, and all else follows from them.
        beam_options: Of Beam, the runner among them.
        dataset_uri: Where Beam's workers find the dataset, if they are on other machines.

    Raises:
        UserError: An input is wrong, or there are anomalies and on_anomaly is "fail".
    """
    if on_anomaly not in ("fail", "report"):
        raise UserError("validate", "on_anomaly", f"{on_anomaly!r} is no choice", 'Give "fail" or "report"')
    on_beam = beam.chosen("validate", engine, beam_options, PACKAGE)
    wanted = _given(given_schema, schema_uri)
    _check_environment(environment, wanted)
    baselines = Baselines(
        previous=read_statistics(previous_statistics, "validate", "previous_statistics")
        if previous_statistics
        else None,
        serving=_statistics(serving_statistics, "serving_statistics"),
    )
    data = open_dataset(dataset, "validate", "dataset")
    described = _described(data, wanted, on_beam, dataset_uri)
    demands = infer(described.datasets[0]) if wanted is None else wanted
    verdict = find(described.datasets[0], demands, environment, baselines)

    files.write_binary(described, statistics)
    files.write_text(demands, schema)
    files.write_text(verdict.anomalies, anomalies)
    origin = "inferred from these rows" if wanted is None else schema_uri or "given"
    render.write(report, data, described.datasets[0], demands, verdict, baselines, origin, environment)

    warnings = tuple(str(item) for item in verdict.unchecked)
    for warning in warnings:
        print(f"warning: validate: {warning}", file=sys.stderr)
    if verdict.count and on_anomaly == "fail":
        remedy = f'Look at {os.fspath(report)}; mend the data or the schema, or go on with on_anomaly="report"'
        raise UserError("validate", "dataset", _summary(verdict), remedy)
    return Validated(not verdict.count, verdict.count, warnings)


def _described(
    data: Dataset, schema: Schema | None, engine: beam.Engine | None, uri: str
) -> DatasetFeatureStatisticsList:
    if engine is None:
        return describe(data, schema)
    with tempfile.TemporaryDirectory(prefix="penstock-validate-") as scratch:
        return describe_on_beam(data, engine, schema, scratch, uri)


def _given(path: str | os.PathLike[str] | None, uri: str) -> Schema | None:
    if path and uri:
        raise UserError("validate", "schema_uri", "given_schema is given too", "Give one of the two")
    if uri:
        return files.fetch_schema(uri, "schema_uri")
    return files.read_schema(path, "given_schema") if path else None


def _statistics(path: str | os.PathLike[str] | None, argument: str) -> DatasetFeatureStatistics | None:
    return read_statistics(path, "validate", argument) if path else None


def _check_environment(environment: str, schema: Schema | None) -> None:
    if not environment:
        return
    known = schemas.environments(schema) if schema else []
    if environment not in known:
        remedy = f"The schema names {', '.join(known)}" if known else "The schema names none; leave environment empty"
        raise UserError("validate", "environment", f"there is no environment {environment!r}", remedy)


def _summary(verdict: Verdict) -> str:
    infos = verdict.anomalies.anomaly_info
    found = [f"{name}: {reason.short_description}" for name in sorted(infos) for reason in infos[name].reason]
    found = [f"dataset: {r.short_description}" for r in verdict.anomalies.dataset_anomaly_info.reason] + found
    noun = "anomaly" if verdict.count == 1 else "anomalies"
    more = f" and {len(found) - _NAMED_ANOMALIES} more" if len(found) > _NAMED_ANOMALIES else ""
    return f"{verdict.count} {noun}: {'; '.join(found[:_NAMED_ANOMALIES])}{more}"
