"""The work of `check_serving`: what a model saw in training is what the online store returns.

Two comparisons, for the same entities and times. Rows of the training set are retrieved once more, and have to be what
they were: features that were corrected since show here. And for entities of the training set, what the online store
returns has to be what a training set would have at the time of the online row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService

from penstock.components._shared.dataset import Dataset, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.features.historical import historical
from penstock.components.features.online import Served, same, served
from penstock.components.features.problems import listed
from penstock.components.features.repo import CONFIG
from penstock.components.features.retrieve import check_columns, check_times, requested, views_of
from penstock.components.features.store import OpenStore, opened

COMPONENT = "check_serving"
SEED = 0


@dataclass(frozen=True)
class Checked:
    """What was compared, and found to be the same.

    Attributes:
        entities: Entities whose online values were compared.
        values: Values of the online store that were compared.
        repeated: Values of the training set that were retrieved once more.
        expired: Online values that were older than their view's TTL beside others of the entity, and not compared.
    """

    entities: int
    values: int
    repeated: int
    expired: int


def check(
    dataset: str | os.PathLike[str],
    repo: str,
    *,
    service: str,
    timestamp: str,
    config: str = CONFIG,
    sample: int = 1000,
) -> Checked:
    """Compare training and serving, and return how much was compared.

    Args:
        dataset: Training set, as retrieve() writes it.
        repo: Feature repository; see check_out.
        service: Feature service that it was retrieved by.
        timestamp: Column of times.
        config: File of the repository that configures the store.
        sample: Rows and entities at most.

    Raises:
        UserError: A value differs, nothing can be compared, or the store cannot be used.
    """
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
        raise UserError(COMPONENT, "sample", f"{sample!r} is no number of entities", "Give 1 or more")
    given = open_dataset(dataset, COMPONENT, "dataset")
    check_times(given, timestamp, COMPONENT, "dataset")
    if not given.rows:
        raise UserError(COMPONENT, "dataset", "it has no rows", "Give a training set that has")
    with opened(repo, config, COMPONENT) as place:
        asked = place.service(service)
        check_columns(place, asked, given, "dataset")
        rows = _sampled(given, sample)
        features = [name for name in _features(place, asked) if name in rows.column_names]
        repeated = _repeat(place, asked, rows, features, timestamp)
        return _compare(place, asked, rows, features, timestamp, repeated)


def _sampled(dataset: Dataset, count: int) -> pa.Table:
    """Return so many rows; the same ones for the same dataset."""
    chosen = np.sort(np.random.default_rng(SEED).permutation(dataset.rows)[:count])
    tables, first = [], 0
    for file in dataset.files:
        table = pq.read_table(file)
        here = chosen[(chosen >= first) & (chosen < first + len(table))] - first
        tables.append(table.take(pa.array(here)))
        first += len(table)
    return pa.concat_tables(tables)


def _features(place: OpenStore, service: FeatureService) -> list[str]:
    return [each.name for projection in service.feature_view_projections for each in projection.features]


def _historical(place: OpenStore, service: FeatureService, rows: pa.Table, timestamp: str) -> list[dict[str, Any]]:
    """Return what a training set of these rows has."""
    with TemporaryDirectory(prefix="penstock-check-") as scratch, place.speaking("features cannot be read"):
        entities = Path(scratch) / "entities.parquet"
        pq.write_table(rows, entities)
        historical(place.store, [entities], service, Path(scratch) / "joined", timestamp=timestamp)
        parts = sorted((Path(scratch) / "joined").glob("*.parquet"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]


def _repeat(place: OpenStore, service: FeatureService, rows: pa.Table, features: list[str], timestamp: str) -> int:
    again = _historical(place, service, rows.drop_columns(features), timestamp)
    for before, now in zip(rows.to_pylist(), again, strict=True):
        for name in features:
            if not same(before[name], now[name]):
                raise place.refuse(
                    "dataset",
                    f"{name} was {before[name]} in training and is {now[name]} by now (row of {before[timestamp]})",
                    "Features were corrected since: retrieve the training set and train again",
                )
    return len(features) * len(again)


def _compare(
    place: OpenStore, service: FeatureService, rows: pa.Table, features: list[str], timestamp: str, repeated: int
) -> Checked:
    views = views_of(place, service)
    view_of = {each.name: view for view in views for each in view.features}
    keys = list(dict.fromkeys(key for view in views for key in place.join_keys(view)))
    wanted = list(dict.fromkeys([*keys, *requested(place, service)]))
    entities = {tuple(row[key] for key in keys): row for row in rows.select([*{*wanted, timestamp}]).to_pylist()}
    online = served(place, service, [{name: row[name] for name in wanted} for row in entities.values()])
    known = [
        (row, found, time)
        for row, found in zip(entities.values(), online, strict=True)
        if (time := _newest(found, view_of))
    ]
    if not known:
        raise place.refuse(
            "service",
            f"the online store has none of the {len(entities):,} entities that were looked for ({listed(keys)})",
            "Run sync_features, and check that join keys are written alike",
        )
    at = [{**row, timestamp: time} for row, _, time in known]
    if timestamp in wanted:  # the time of a request is that time then, in serving, too
        online = served(place, service, [{name: row[name] for name in wanted} for row in at])
        known = [(row, found, time) for (row, _, time), found in zip(known, online, strict=True)]
    fields = [
        pa.field(timestamp, pa.timestamp("us", "UTC")) if name == timestamp else rows.schema.field(name)
        for name in at[0]
    ]
    offline = _historical(place, service, pa.Table.from_pylist(at, pa.schema(fields)), timestamp)
    values = expired = 0
    for (row, found, time), then in zip(known, offline, strict=True):
        for name in features:
            view = view_of.get(name)
            of_value = found.times.get(name)
            if view is not None and view.ttl and of_value is not None and time - of_value > view.ttl:
                expired += 1
                continue
            values += 1
            if not same(found.values[name], then[name]):
                about = ", ".join(f"{key}={row[key]}" for key in keys)
                raise place.refuse(
                    "service",
                    f"for {about} at {time} the online store returns {name}={found.values[name]}, "
                    f"and training would see {then[name]}",
                    "Run sync_features; if that does not help, another program writes this online store",
                )
    return Checked(len(known), values, repeated, expired)


def _newest(found: Served, views: dict[str, Any]) -> datetime | None:
    times = [time.astimezone(UTC) for name, time in found.times.items() if time and name in views]
    return max(times, default=None)
