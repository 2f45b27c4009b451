"""The declaration of `validate`."""

from typing import Any, Dict, NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def validate(
    dataset: Input[Dataset],
    statistics: Output[Artifact],
    schema: Output[Artifact],
    anomalies: Output[Artifact],
    report: Output[HTML],
    given_schema: Optional[Input[Artifact]] = None,
    previous_statistics: Optional[Input[Artifact]] = None,
    serving_statistics: Optional[Input[Artifact]] = None,
    schema_uri: str = "",
    environment: str = "",
    on_anomaly: str = "fail",
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> NamedTuple("Validated", [("valid", bool), ("anomaly_count", int)]):
    """Describe a dataset and hold it to a schema, in the files that TFX and TFDV read and write.

    Args:
        dataset: Rows to describe and check.
        statistics: DatasetFeatureStatisticsList (tensorflow-metadata), binary.
        schema: Schema (tensorflow-metadata) that the dataset was held to, as text (pbtxt).
        anomalies: Anomalies (tensorflow-metadata), as text (pbtxt).
        report: Statistics, schema and anomalies to look at.
        given_schema: Schema to hold the dataset to. Without one, and without schema_uri, it is inferred.
        previous_statistics: Statistics of an earlier dataset, for the schema's drift comparators.
        serving_statistics: Statistics of serving data, for the schema's skew comparators.
        schema_uri: Path or URI of a schema.pbtxt, in place of given_schema.
        environment: Environment of the schema, such as "TRAINING"; features not in it may be absent.
        on_anomaly: "fail" to fail the run on anomalies, "report" to go on.
        engine: Where statistics are computed: "local", on this machine, or "beam", by TensorFlow Data Validation on
            Apache Beam, in the image penstock/beam.
        beam_options: Beam's own options; `runner` is DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.

    Returns:
        valid: Whether there are no anomalies.
        anomaly_count: Number of anomalies.
    """
    from penstock.components.validation.validate import validate

    result = validate(
        dataset.path,
        statistics.path,
        schema.path,
        anomalies.path,
        report.path,
        given_schema=given_schema.path if given_schema else None,
        previous_statistics=previous_statistics.path if previous_statistics else None,
        serving_statistics=serving_statistics.path if serving_statistics else None,
        schema_uri=schema_uri,
        environment=environment,
        on_anomaly=on_anomaly,
        engine=engine,
        beam_options=beam_options,
        dataset_uri=dataset.uri,
    )
    return (result.valid, result.anomaly_count)
