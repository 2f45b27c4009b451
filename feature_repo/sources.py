"""Where features come from: rows that `compute_features` makes and `sync_features` adds here."""

from feast import FileSource, RequestSource
from feast.data_format import ParquetFormat
from feast.field import Field
from feast.types import UnixTimestamp

zone_activity = FileSource(
    name="zone_activity",
    path="data/zone_activity",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    description="Hourly rows of a zone: trips of the 1, 6 and 24 hours before event_timestamp.",
)

trip_request = RequestSource(
    name="trip_request",
    schema=[Field(name="pickup_datetime", dtype=UnixTimestamp)],
    description="What is known when a trip is asked for.",
)
