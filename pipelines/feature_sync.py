"""Raw data to features in a store, online and offline."""

from typing import Dict, List

from kfp import dsl

from penstock.components import compute_features, ingest, sync_features

# What the views of feature_repo/ are made of.
TRIPS = """\
SELECT CAST(pickup_location_id AS VARCHAR) AS pickup_zone, pickup_datetime, trip_distance, fare_amount, tip_amount
FROM source
WHERE fare_amount > 0"""


@dsl.pipeline(name="feature-sync")
def feature_sync(
    source: str = "sample://taxi?rows=50000",
    query: str = TRIPS,
    columns: Dict[str, str] = {},
    max_bad_rows: int = 0,
    entities: List[str] = ["pickup_zone"],
    timestamp: str = "pickup_datetime",
    aggregates: Dict[str, str] = {
        "trips": "count",
        "mean_distance": "mean(trip_distance)",
        "mean_fare": "mean(fare_amount)",
        "tip_share": "ratio(tip_amount, fare_amount)",
    },
    windows: List[str] = ["1h", "6h", "24h"],
    step: str = "1h",
    start: str = "",
    end: str = "",
    repo: str = "feature_repo",
    feature_source: str = "",
    config: str = "feature_store.yaml",
    sample: int = 100,
) -> None:
    """Compute features from files, and bring a feature store up to them.

    Fit to be scheduled: a run that finds nothing new changes nothing, and one after an interrupted one goes on where
    that stopped. The defaults fill the example repository, feature_repo, of this project's checkout.

    Args:
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        columns: SQL type by column name, where inference is not wanted.
        max_bad_rows: Bad rows that are put up with.
        entities: Columns that say what a feature row is about.
        timestamp: Column of times.
        aggregates: What to compute, by name; see compute_features.
        windows: How far back.
        step: How often.
        start: First time of the features. Empty: the first whose longest window the files cover.
        end: Last time of the features. Empty: the last that the files cover.
        repo: Feature repository: path, URI or git+https://host/repository.git@revision; see sync_features.
        feature_source: Data source of the repository that the rows go to. Empty: the only one.
        config: File of the repository that configures the store.
        sample: Entities whose online values are held to the offline store's, by feature view.
    """
    ingested = ingest(source=source, query=query, columns=columns, eval_fraction=0.0, max_bad_rows=max_bad_rows)
    computed = compute_features(
        dataset=ingested.outputs["train_set"],
        entities=entities,
        timestamp=timestamp,
        aggregates=aggregates,
        windows=windows,
        step=step,
        start=start,
        end=end,
    )
    sync_features(features=computed.outputs["features"], repo=repo, source=feature_source, config=config, sample=sample)
