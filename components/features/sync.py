"""The work of `sync_features`: definitions, rows and the online store brought to where a dataset is.

The order makes it safe to end anywhere and to run again: the registry first, as a whole; then the rows, as a whole, and
marked as not yet online; then the online store, entity by entity, each to its newest row, which another time changes
nothing; last the mark is taken away. Feast notes in the registry how far each view has come only once it has.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from feast import FeatureView

from penstock.components._shared.dataset import open_dataset
from penstock.components._shared.errors import UserError
from penstock.components.features.materialize import Materialized, materialize
from penstock.components.features.online import same, served
from penstock.components.features.problems import listed
from penstock.components.features.repo import CONFIG
from penstock.components.features.store import Change, OpenStore, opened, silent
from penstock.components.features.stored import Added, OfflineSource, columns_of
from penstock.components.features.times import instant

COMPONENT = "sync_features"


@dataclass(frozen=True)
class Synced:
    """What a run changed, and what the store has now.

    Attributes:
        changes: Definitions that it applied.
        added: Rows that it added to the offline store.
        materialized: What it wrote to the online store, by feature view; nothing of views that were up to date.
        verified: Values of the online store that it compared with the offline store.
        resumed: Whether it finished what an interrupted run had begun.
        first: Earliest event time of what it wrote online; None where it wrote nothing.
        newest: Latest event time in the offline store.
        age: Seconds since then.
    """

    changes: tuple[Change, ...]
    added: int
    materialized: dict[str, Materialized]
    verified: int
    resumed: bool
    first: datetime | None
    newest: datetime | None
    age: float


def sync(
    features: str | os.PathLike[str],
    repo: str,
    *,
    source: str = "",
    config: str = CONFIG,
    views: Sequence[str] = (),
    until: str = "",
    sample: int = 100,
) -> Synced:
    """Apply a repository, add a dataset's rows to its offline store and bring the online store up to them.

    Args:
        features: Dataset of feature rows.
        repo: Feature repository; see check_out.
        source: Data source of the repository that the rows go to. Empty: the only one.
        config: File of the repository that configures the store.
        views: Feature views to bring online. Empty: all that read the source and are meant to be online.
        until: Event time up to which rows go online, ISO 8601. Empty: all of them.
        sample: Entities whose values in the online store are held to the offline store's, by feature view; 0: none.

    Raises:
        UserError: The repository, the rows or a store cannot be used, another run changed the registry in between, or
            the online store has other values than the offline store. It says what has been done.
    """
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 0:
        raise UserError(COMPONENT, "sample", f"{sample!r} is no number of entities", "Give 0 or more")
    end = instant(until, COMPONENT, "until")
    dataset = open_dataset(features, COMPONENT, "features")
    with opened(repo, config, COMPONENT) as place, place.exclusively():
        target = place.source(source)
        reading = [view for view in place.views() if view.batch_source == target]
        chosen = _chosen(place, reading, views)
        offline = OfflineSource(place, target, reading)
        offline.check_columns(dataset)
        changes = place.apply()
        for change in changes:
            print(change, flush=True)
        added = offline.add(dataset)
        print(f"{added.rows:,} of {dataset.rows:,} rows added to {target.name}", flush=True)
        if added.interrupted:
            print("an earlier run was interrupted before its rows were online: they go online now", flush=True)
        end = end or added.newest
        done = _bring_online(place, chosen, changes, added, end) if end else {}
        for name, what in done.items():
            print(f"{name}: {max(what.rows, 0):,} entities online, rows of {what.start} to {what.end}", flush=True)
        verified = sum(_verify(place, offline, view, sample) for view in chosen)
        place.check_unchanged("Its rows are online by this repository's definitions, not by what the registry says now")
        if not until:
            offline.settle()
    now = datetime.now(UTC)
    return Synced(
        changes=tuple(changes),
        added=added.rows,
        materialized=done,
        verified=verified,
        resumed=added.interrupted,
        first=min((what.start for what in done.values()), default=None),
        newest=added.newest,
        age=max(0.0, (now - added.newest).total_seconds()) if added.newest else 0.0,
    )


def _chosen(place: OpenStore, reading: Sequence[FeatureView], names: Sequence[str]) -> list[FeatureView]:
    known = {view.name: view for view in reading if view.online}
    for name in names:
        if name not in known:
            problem = f"{name!r} is no feature view of the source that is meant to be online"
            raise place.refuse("views", problem, f"There are {listed(known)}")
    return [known[name] for name in names] if names else list(known.values())


def _bring_online(
    place: OpenStore, views: Sequence[FeatureView], changes: Sequence[Change], added: Added, end: datetime
) -> dict[str, Materialized]:
    """Materialize each view from the first row that is not online yet; a changed view from its first row."""
    changed = {change.name for change in changes if change.kind == "feature view"}
    everything = any(change.kind in ("entity", "data source") and change.action == "updated" for change in changes)
    done: dict[str, Materialized] = {}
    for view in views:
        reached = place.store.get_feature_view(view.name).most_recent_end_time
        reached = reached.replace(tzinfo=UTC) if reached and reached.tzinfo is None else reached
        if reached is None or view.name in changed or everything:
            start = added.earliest
        elif added.pending is not None:
            start = min(added.pending, reached)
        elif reached < end:
            start = reached
        else:
            continue
        if start is None or start > end:
            continue
        left = [each.name for each in views if each.name not in done]
        consequence = (
            f"Online up to {end}: {listed(done)}. Not, or in part: {listed(left)}. Rows and definitions are in place; "
            "another run goes on here"
        )
        with place.speaking(f"feature view {view.name} cannot be brought online", consequence), silent():
            done.update(materialize(place.store, [view.name], end, start=start))
    return done


def _verify(place: OpenStore, offline: OfflineSource, view: FeatureView, sample: int) -> int:
    """Hold the online store to the newest rows of the offline store; return how many values were compared."""
    reached = place.store.get_feature_view(view.name).most_recent_end_time
    if not sample or reached is None:
        return 0
    reached = reached.replace(tzinfo=UTC) if reached.tzinfo is None else reached
    columns = columns_of(place, offline.source, [view])
    names = dict(offline.source.field_mapping)
    rows = offline.latest(view, reached, sample).to_pylist()
    keys = [{names.get(key, key): row[key] for key in columns.keys} for row in rows]
    references = [f"{view.name}:{each.name}" for each in view.features]
    compared = 0
    for row, key, found in zip(rows, keys, served(place, references, keys), strict=True):
        for column in columns.values:
            name = names.get(column, column)
            compared += 1
            if not same(row[column], found.values[name]):
                about = ", ".join(f"{name}={value}" for name, value in key.items())
                raise place.refuse(
                    "repo",
                    f"the online store has {name}={found.values[name]} for {about} of {found.times[name]}, and the "
                    f"offline store {row[column]} of {row[columns.event]} (feature view {view.name})",
                    "Materialize the view anew; if that does not help, another program writes this online store",
                )
    return compared
