"""What models ask for."""

from feast import FeatureService
from feature_views import trip_time, zone_1h, zone_6h, zone_24h

big_tip = FeatureService(
    name="big_tip",
    features=[zone_1h, zone_6h, zone_24h, trip_time],
    description="What the model of big tips reads beside the trip itself.",
)
