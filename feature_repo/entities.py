"""What features are about."""

from feast import Entity, ValueType

pickup_zone = Entity(
    name="pickup_zone",
    join_keys=["pickup_zone"],
    value_type=ValueType.STRING,
    description="Taxi zone where a trip begins, as text.",
)
