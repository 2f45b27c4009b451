"""The features of a zone over three windows, and those of the moment of a request."""

from datetime import timedelta

import pandas as pd
from entities import pickup_zone
from feast import FeatureView, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from sources import trip_request, zone_activity


def over(window: str) -> FeatureView:
    """Return the view of one window; a row holds for two hours, for the rows of the next hour may come late."""
    return FeatureView(
        name=f"zone_{window}",
        entities=[pickup_zone],
        ttl=timedelta(hours=2),
        schema=[
            Field(name=f"trips_{window}", dtype=Int64, description="Trips that began in the zone."),
            Field(name=f"mean_distance_{window}", dtype=Float64, description="Miles."),
            Field(name=f"mean_fare_{window}", dtype=Float64, description="Dollars."),
            Field(name=f"tip_share_{window}", dtype=Float64, description="Tips by fares; cash tips are not known."),
        ],
        source=zone_activity,
        description=f"Trips of the last {window} before the hour.",
    )


zone_1h = over("1h")
zone_6h = over("6h")
zone_24h = over("24h")


@on_demand_feature_view(
    name="trip_time",
    sources=[trip_request],
    schema=[
        Field(name="hour_of_day", dtype=Int64),
        Field(name="day_of_week", dtype=Int64),
        Field(name="hour_of_week", dtype=Int64),
    ],
    description="The moment of a request, by the clock that pickup_datetime is in.",
)
def trip_time(inputs: pd.DataFrame) -> pd.DataFrame:
    moment = pd.to_datetime(inputs["pickup_datetime"], utc=True)
    return pd.DataFrame(
        {
            "hour_of_day": moment.dt.hour.astype("int64"),
            "day_of_week": (moment.dt.dayofweek + 1).astype("int64"),
            "hour_of_week": (moment.dt.dayofweek * 24 + moment.dt.hour).astype("int64"),
        }
    )
