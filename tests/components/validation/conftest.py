"""What tests of validation share: statistics of a few rows, and verdicts on them."""

from collections.abc import Callable

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.anomalies_pb2 import AnomalyInfo
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics

from penstock.components._shared.dataset import open_dataset
from penstock.components.validation.anomalies import Baselines, Verdict, find
from penstock.components.validation.statistics import describe


def as_schema(text: str) -> Schema:
    return text_format.Parse(text, Schema())


@pytest.fixture(scope="session")
def statistics_of(make_dataset) -> Callable[..., DatasetFeatureStatistics]:
    """Return a function from columns (and a schema's text) to their statistics."""

    def statistics(columns, schema: str = "") -> DatasetFeatureStatistics:
        data = open_dataset(make_dataset(columns), "test", "columns")
        return describe(data, as_schema(schema) if schema else None).datasets[0]

    return statistics


@pytest.fixture(scope="session")
def verdict_on(statistics_of) -> Callable[..., Verdict]:
    """Return a function that holds columns to a schema's text."""

    def verdict(columns, schema: str, environment: str = "", previous=None, serving=None) -> Verdict:
        baselines = Baselines(
            *(None if other is None else statistics_of(other, schema) for other in (previous, serving))
        )
        return find(statistics_of(columns, schema), as_schema(schema), environment, baselines)

    return verdict


@pytest.fixture(scope="session")
def kinds_of() -> Callable[[Verdict], dict[str, list[str]]]:
    """Return a function from a verdict to the names of its anomalies' types, by feature."""

    def kinds(verdict: Verdict) -> dict[str, list[str]]:
        infos = dict(verdict.anomalies.anomaly_info)
        if verdict.anomalies.HasField("dataset_anomaly_info"):
            infos[""] = verdict.anomalies.dataset_anomaly_info
        return {name: [AnomalyInfo.Type.Name(reason.type) for reason in info.reason] for name, info in infos.items()}

    return kinds
