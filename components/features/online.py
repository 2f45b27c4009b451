"""Reads features as a model that serves would, and holds them to what the offline store says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from feast import FeatureService

from penstock.components.features.store import OpenStore

BATCH = 500  # entities that one request asks for
SAME = 1e-9  # relative difference of two numbers that are the same, through the types of both stores


@dataclass(frozen=True)
class Served:
    """What the online store returned for one entity.

    Attributes:
        values: By feature; None where it has none.
        times: Event time by feature, of the row that the value is from; None where there is none.
    """

    values: Mapping[str, Any]
    times: Mapping[str, datetime | None]


def served(
    place: OpenStore,
    features: FeatureService | Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    full_names: bool = False,
) -> list[Served]:
    """Return what the online store has now for each entity, in order.

    Args:
        features: Feature service, or references such as "zone_1h:trips_1h".
        rows: Join keys by name, and what on-demand views want to know of a request.
    """
    found: list[Served] = []
    for first in range(0, len(rows), BATCH):
        batch = [dict(row) for row in rows[first : first + BATCH]]
        with place.speaking("the online store cannot be read"):
            response = place.store.get_online_features(
                features=features, entity_rows=batch, full_feature_names=full_names
            )
        answer, values = response.proto, response.to_dict()
        names = [name for name in answer.metadata.feature_names.val if name not in batch[0]]
        times = {
            name: result.event_timestamps
            for name, result in zip(answer.metadata.feature_names.val, answer.results, strict=True)
        }
        for place_, _ in enumerate(batch):
            found.append(
                Served(
                    {name: values[name][place_] for name in names},
                    {name: _time(times[name], place_) for name in names},
                )
            )
    return found


def _time(times: Any, place: int) -> datetime | None:
    if place >= len(times) or not times[place].seconds:
        return None
    return times[place].ToDatetime(tzinfo=UTC)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same: numbers by what single and double precision keep of them, times by instant."""
    one, other = _plain(one), _plain(other)
    if one is None or other is None:
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=SAME) or float(np.float32(one)) == float(np.float32(other))
        except TypeError:
            return False
    return bool(one == other)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else value
