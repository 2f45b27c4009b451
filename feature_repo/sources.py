"""Where features come from: rows that `compute_features` makes and `sync_features` adds here.

FEATURES_FOLDER names the folder of the files, FEATURES_TABLE a table in BigQuery to be read in their place.
"""

import os

from feast import BigQuerySource, Field, FileSource, RequestSource
from feast.data_format import ParquetFormat
from feast.types import UnixTimestamp

COLUMNS = {
    "name": "zone_activity",
    "timestamp_field": "event_timestamp",
    "created_timestamp_column": "created",
    "description": "Hourly rows of a zone: trips of the 1, 6 and 24 hours before event_timestamp.",
}

if table := os.environ.get("FEATURES_TABLE"):
    zone_activity = BigQuerySource(table=table, **COLUMNS)
else:
    folder = os.environ.get("FEATURES_FOLDER", "data")
    zone_activity = FileSource(path=f"{folder}/zone_activity", file_format=ParquetFormat(), **COLUMNS)

trip_request = RequestSource(
    name="trip_request",
    schema=[Field(name="pickup_datetime", dtype=UnixTimestamp)],
    description="What is known when a trip is asked for.",
)
