"""The declarations of `compute_features`, `sync_features`, `retrieve_features` and `check_serving`."""

from typing import Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@dsl.component(base_image=image("features"), install_kfp_package=False)
def compute_features(
    dataset: Input[Dataset],
    features: Output[Dataset],
    entities: List[str],
    timestamp: str,
    aggregates: Dict[str, str],
    windows: List[str] = ["1h", "6h", "24h"],
    step: str = "1h",
    start: str = "",
    end: str = "",
) -> NamedTuple("ComputedFeatures", [("rows", int), ("columns", List[str]), ("first", str), ("last", str)]):
    """Compute aggregates over sliding windows, none of which looks ahead.

    A row of the result stands for one entity at one time t and is made of rows strictly before t: [t - window, t).

    Args:
        dataset: Rows with a time.
        features: The entities, event_timestamp and created (UTC, microseconds), and <aggregate>_<window> for each
            aggregate and window.
        entities: Columns that say what a row is about, for example ["pickup_zone"].
        timestamp: Column of times; UTC where it has no time zone.
        aggregates: What to compute, by name: "count", "sum(x)", "mean(x)", "min(x)", "max(x)" or "ratio(x, y)", the sum
            of x by that of y.
        windows: How far back, in m, h or d, for example "6h"; multiples of the step.
        step: How often there is a row, in m, h or d.
        start: First time of the result, as ISO 8601. Empty: the first whose longest window the dataset covers.
        end: Last time of the result. Empty: the last that the dataset covers.

    Returns:
        rows: Rows of features.
        columns: Names of the features.
        first: Time of the first row, as ISO 8601; empty if there is none.
        last: Time of the last row.
    """
    from penstock.components.features.compute import compute

    result = compute(
        dataset.path,
        features.path,
        entities=entities,
        timestamp=timestamp,
        aggregates=aggregates,
        windows=windows,
        step=step,
        start=start,
        end=end,
    )
    times = [time.isoformat() if time else "" for time in (result.first, result.last)]
    return (result.rows, list(result.columns), *times)


@uncached
@dsl.component(base_image=image("features"), install_kfp_package=False)
def sync_features(
    features: Input[Dataset],
    report: Output[Markdown],
    repo: str,
    source: str = "",
    config: str = "feature_store.yaml",
    views: List[str] = [],
    until: str = "",
    sample: int = 100,
) -> NamedTuple(
    "SyncedFeatures",
    [
        ("changes", List[str]),
        ("added", int),
        ("materialized", int),
        ("verified", int),
        ("first", str),
        ("newest", str),
        ("age_seconds", float),
    ],
):
    """Bring a feature store to where a dataset is: its definitions, its rows, its online store.

    Run again, it changes nothing; interrupted, the next run goes on where it stopped.

    Args:
        features: Rows as compute_features writes them: the columns that the source's feature views read.
        report: What was changed, to look at.
        repo: Feature repository: path of a folder or archive, URI of either, or git+https://host/repository.git@revision
            (#subdirectory=feature_repo names a folder within).
        source: Data source of the repository that the rows go to. Empty: the only one.
        config: File of the repository that configures the store. Secrets in it are variables, ${NAME}.
        views: Feature views to bring online. Empty: all that read the source.
        until: Event time up to which rows go online, as ISO 8601. Empty: all of them.
        sample: Entities whose online values are held to the offline store's, by feature view; 0: none.

    Returns:
        changes: Definitions that were created, updated or deleted, a line each, 50 at most.
        added: Rows that were added to the offline store.
        materialized: Rows that were written to the online store.
        verified: Values of the online store that were compared, and found to be the offline store's.
        first: Earliest event time of what was written online, as ISO 8601; empty if nothing was.
        newest: Latest event time in the offline store.
        age_seconds: Time since then.
    """
    from penstock.components.features.report import of_sync, summary, write
    from penstock.components.features.sync import sync

    result = sync(features.path, repo, source=source, config=config, views=views, until=until, sample=sample)
    write(report.path, "Feature store", of_sync(result))
    return summary(result)


@uncached
@dsl.component(base_image=image("features"), install_kfp_package=False)
def retrieve_features(
    entities: Input[Dataset],
    dataset: Output[Dataset],
    report: Output[Markdown],
    repo: str,
    service: str,
    timestamp: str,
    config: str = "feature_store.yaml",
    max_missing: float = 1.0,
) -> NamedTuple("RetrievedFeatures", [("rows", int), ("columns", List[str]), ("incomplete_rows", int)]):
    """Join features to rows as they were known at each row's time.

    Every row is kept, in order. A feature row counts from its event time on, for as long as its view's TTL.

    Args:
        entities: Rows with the join keys, a time, and what on-demand views request.
        dataset: The same rows with the features as further columns.
        report: Rows without a value, by feature.
        repo: Feature repository; see sync_features.
        service: Feature service of the repository, already synced.
        timestamp: Column of times; UTC where it has no time zone.
        config: File of the repository that configures the store.
        max_missing: Share of the rows, 0 to 1, that may lack a feature. A feature that every row lacks is refused
            whatever this says.

    Returns:
        rows: Rows of dataset.
        columns: Names of the features.
        incomplete_rows: Rows that lack at least one feature.
    """
    from penstock.components.features.report import of_retrieve, write
    from penstock.components.features.retrieve import retrieve

    result = retrieve(
        entities.path,
        dataset.path,
        repo,
        service=service,
        timestamp=timestamp,
        config=config,
        max_missing=max_missing,
    )
    write(report.path, "Features", of_retrieve(result))
    return (result.rows, list(result.missing), result.incomplete)


@uncached
@dsl.component(base_image=image("features"), install_kfp_package=False)
def check_serving(
    dataset: Input[Dataset],
    report: Output[Markdown],
    repo: str,
    service: str,
    timestamp: str,
    config: str = "feature_store.yaml",
    sample: int = 1000,
) -> NamedTuple("CheckedServing", [("entities", int), ("values", int)]):
    """Hold what a model saw in training to what the online store returns for the same entities and time.

    The online store knows one time of each entity. Rows of the training set are compared where their features are of
    that time; it fails at the first value that differs, and names it.

    Args:
        dataset: Rows as retrieve_features writes them.
        report: How many were compared, by feature view.
        repo: Feature repository; see sync_features.
        service: Feature service that the rows were retrieved by.
        timestamp: Column of times.
        config: File of the repository that configures the store.
        sample: Entities at most.

    Returns:
        entities: Entities that were compared.
        values: Values that were compared.
    """
    from penstock.components.features.report import of_check, write
    from penstock.components.features.serving import check

    result = check(dataset.path, repo, service=service, timestamp=timestamp, config=config, sample=sample)
    write(report.path, "Serving", of_check(result))
    return (result.entities, result.values)
