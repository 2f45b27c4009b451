"""The declarations of `register`, `promote`, `fetch_reference` and `fetch_model`."""

from typing import NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Model, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def register(
    model: Input[Model],
    metrics: Input[Metrics],
    model_name: str,
    schema: Optional[Input[Artifact]] = None,
    statistics: Optional[Input[Artifact]] = None,
    platform: str = "mlflow",
    registry: str = "",
    alias: str = "champion",
    expected_version: str = "any",
    reason: str = "",
    run_id: str = "",
    spec_sha256: str = "",
    git_commit: str = "",
) -> NamedTuple("Registered", [("version", str), ("uri", str), ("previous_version", str)]):
    """Record a model as a new version with its lineage and make it the champion.

    The version carries the training data's fingerprint, the schema, parameters, metrics, spec, image and commit. The
    alias moves by compare-and-set: of registrations that race for it exactly one wins, the others fail and say so.

    Args:
        model: Model written by train.
        metrics: Metrics written by evaluate.
        model_name: Name in the registry.
        schema: Schema of the training data.
        statistics: Statistics of the training data from validate, for fetch_reference to hand out.
        platform: Kind of registry: "mlflow".
        registry: URI of the registry. Empty: the environment's, or the local run folder's.
        alias: Alias to move to the new version: "champion" or "challenger". Empty: none.
        expected_version: Version that the alias must still point to, as evaluate returns it for the champion; "" where
            there was none. "any": the one it points to when registration starts.
        reason: Why the model was blessed.
        run_id: Run that made the model.
        spec_sha256: SHA-256 of the compiled pipeline. `penstock run` and `penstock submit` fill it in.
        git_commit: Commit of the pipeline's source. `penstock run` and `penstock submit` fill it in.

    Returns:
        version: The new version.
        uri: The model's URI in the registry, for example models:/tips/3.
        previous_version: Version that the alias pointed to before; empty if there was none.
    """
    from penstock.components.registry.register import register

    result = register(
        model.path,
        dict(metrics.metadata),
        model_name=model_name,
        schema=schema.path if schema else None,
        statistics=statistics.path if statistics else None,
        platform=platform,
        registry=registry,
        alias=alias,
        expected_version=expected_version,
        reason=reason,
        run_id=run_id,
        spec_sha256=spec_sha256,
        git_commit=git_commit,
    )
    return (result.version, result.uri, result.previous_version)


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def promote(
    model_name: str,
    version: str,
    alias: str = "champion",
    expected_version: str = "any",
    platform: str = "mlflow",
    registry: str = "",
    run_id: str = "",
) -> NamedTuple("Promoted", [("uri", str), ("previous_version", str)]):
    """Make a registered version the champion, if the one that it was measured against still is.

    The alias moves by compare-and-set, as register moves it: of those that race for it exactly one wins.

    Args:
        model_name: Name in the registry.
        version: Version to promote, as register returns it.
        alias: Alias to move: "champion" or "challenger".
        expected_version: Version that the alias must still point to, as evaluate returns it for the champion; "" where
            there was none. "any": the one it points to when this starts.
        platform: Kind of registry: "mlflow".
        registry: URI of the registry. Empty: the environment's, or the local run folder's.
        run_id: Run that promotes it, for others to see.

    Returns:
        uri: The version's URI in the registry, for example models:/tips/3.
        previous_version: Version that the alias pointed to before; empty if there was none.
    """
    from penstock.components.registry.promote import promote

    result = promote(
        model_name,
        version,
        alias=alias,
        expected_version=expected_version,
        platform=platform,
        registry=registry,
        run_id=run_id,
    )
    return (result.uri, result.previous_version)


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def fetch_reference(
    statistics: Output[Artifact],
    model_name: str,
    alias: str = "champion",
    platform: str = "mlflow",
    registry: str = "",
) -> NamedTuple("Fetched", [("version", str), ("uri", str)]):
    """Fetch the statistics of the rows that a registered model was trained on, for detect_drift to compare with.

    Args:
        statistics: DatasetFeatureStatisticsList (tensorflow-metadata), binary, as it was registered.
        model_name: Name in the registry.
        alias: Alias of the version: "champion" or "challenger".
        platform: Kind of registry: "mlflow".
        registry: URI of the registry. Empty: the environment's, or the local run folder's.

    Returns:
        version: The version that the alias points to.
        uri: The version's URI in the registry, for example models:/tips/3.
    """
    from penstock.components.registry.promote import fetch_reference

    result = fetch_reference(model_name, statistics.path, alias=alias, platform=platform, registry=registry)
    return (result.version, result.uri)


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def fetch_model(
    source: str,
    model: Output[Model],
    registry: str = "",
) -> NamedTuple("Fetched", [("uri", str), ("version", str)]):
    """Fetch a model out of a registry, a bucket or this machine, every byte of it verified.

    Args:
        source: "models:/NAME@ALIAS" or "models:/NAME/VERSION" in the registry; or the path or URI of a model folder.
        model: The model.
        registry: URI of the MLflow registry. Empty: the environment's, or the local run folder's.

    Returns:
        uri: Where it came from; of a registry with the version, for example models:/tips/3.
        version: In the registry; empty where it came from elsewhere.
    """
    from penstock.components.registry.fetch import fetch

    result = fetch(source, model.path, registry=registry)
    return (result.uri, result.version)
