"""The work of `retrieve_features`: a training set whose features are those that were known at each row's time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureService, FeatureView

from penstock.components._shared import disk
from penstock.components._shared.dataset import Dataset, batches_of, open_dataset, write_dataset
from penstock.components._shared.errors import UserError
from penstock.components.features.historical import historical
from penstock.components.features.problems import listed
from penstock.components.features.repo import CONFIG
from penstock.components.features.store import OpenStore, opened
from penstock.components.features.stored import OfflineSource

COMPONENT = "retrieve_features"
BATCH = 61_440


@dataclass(frozen=True)
class Retrieved:
    """What came out.

    Attributes:
        missing: Rows without a value, by feature.
        incomplete: Rows that lack at least one feature.
    """

    rows: int
    missing: dict[str, int]
    incomplete: int


def retrieve(
    entities: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    repo: str,
    *,
    service: str,
    timestamp: str,
    config: str = CONFIG,
    max_missing: float = 1.0,
) -> Retrieved:
    """Write a dataset's rows with the features of a service as they were known at each row's time.

    Args:
        entities: Dataset with the join keys, a time, and what on-demand views request.
        dataset: Folder to write to: every row, in order, with the features as further columns.
        repo: Feature repository; see check_out.
        service: Feature service.
        timestamp: Column of times; UTC where it has no time zone.
        config: File of the repository that configures the store.
        max_missing: Share of the rows, 0 to 1, that may lack a feature.

    Raises:
        UserError: The repository, the store or the rows cannot be used, or more rows lack features than may.
    """
    if not 0 <= max_missing <= 1:
        raise UserError(COMPONENT, "max_missing", f"{max_missing} is no share", "Give 0 to 1")
    given = open_dataset(entities, COMPONENT, "entities")
    check_times(given, timestamp, COMPONENT, "entities")
    with opened(repo, config, COMPONENT) as place, TemporaryDirectory(prefix="penstock-joined-") as scratch:
        asked = place.service(service)
        check_columns(place, asked, given, "entities")
        size = disk.carried(given, given.schema)
        # What lies at `dataset` makes room before rows are written there.
        written = {Path(scratch): size, Path(dataset): 0 if Path(dataset).exists() else size}
        what, remedy = "the rows, written twice,", "Bring fewer rows or columns, or give the step a larger disk"
        disk.require(written, COMPONENT, "entities", what, remedy)
        with place.speaking("features cannot be read"):
            joined = historical(place.store, given.files, asked, scratch, timestamp=timestamp)
        if joined.rows != given.rows:
            raise AssertionError(f"{given.rows} rows went in, and {joined.rows} came out")
        missing = dict(joined.missing)
        refuse_hidden(place, asked, given, timestamp, missing)
        counted = _Counted(sorted(Path(scratch).glob("*.parquet")), list(missing))
        write_dataset(dataset, counted.schema, counted)
    if given.rows and counted.incomplete > max_missing * given.rows:
        worst = sorted(missing, key=lambda name: -missing[name])[:3]
        raise UserError(
            COMPONENT,
            "max_missing",
            f"{counted.incomplete:,} of {given.rows:,} rows lack a feature, most of all {listed(worst)}",
            "Sync rows for those times, or allow more",
        )
    return Retrieved(given.rows, missing, counted.incomplete)


def check_times(dataset: Dataset, timestamp: str, component: str, argument: str) -> None:
    """Refuse rows without a time, and times that are text: of text nobody knows which time zone it means."""

    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(component, argument, problem, remedy)

    if timestamp not in dataset.schema:
        raise refuse(f"there is no column {timestamp!r} of times", f"The columns are {listed(dataset.schema, 40)}")
    kind = dataset.schema[timestamp]
    if kind in ("string", "large_string"):
        zones = {_zone(text) for file in dataset.files for text in _texts(file, timestamp)} - {None}
        found = f"with the time zones {listed(sorted(map(str, zones)))} mixed" if len(zones) > 1 else "with no type"
        raise refuse(
            f"column {timestamp} is text, {found}", "CAST it to TIMESTAMPTZ in the query of ingest; it is then in UTC"
        )
    if not kind.startswith("timestamp"):
        raise refuse(
            f"column {timestamp} is {kind}, no time", "CAST it to TIMESTAMP or TIMESTAMPTZ in the query of ingest"
        )
    nulls = sum(pq.read_table(file, columns=[timestamp]).column(0).null_count for file in dataset.files)
    if nulls:
        raise refuse(
            f"{nulls:,} of {dataset.rows:,} rows have no {timestamp}",
            f"Leave them out by a query with WHERE {timestamp} IS NOT NULL",
        )


def _texts(file: Path, column: str) -> Iterator[str | None]:
    for batch in batches_of([file], BATCH, [column]):
        yield from pc.unique(batch.column(0)).to_pylist()


def _zone(text: str | None) -> str | None:
    found = re.search(r"(Z|[+-]\d\d:?\d\d)$", text or "")
    return (found[0] if found else "none") if text else None


def views_of(place: OpenStore, service: FeatureService) -> list[FeatureView]:
    """Return the feature views of a service, those that its on-demand views read among them."""
    wanted = {projection.name for projection in service.feature_view_projections}
    for view in place.contents.on_demand_feature_views:
        if view.name in wanted:
            wanted |= {projection.name for projection in view.source_feature_view_projections.values()}
    return [view for view in place.contents.feature_views if view.name in wanted]


def requested(place: OpenStore, service: FeatureService) -> list[str]:
    """Return the columns that the on-demand views of a service want to know of a request."""
    wanted = {projection.name for projection in service.feature_view_projections}
    names = [
        name
        for view in place.contents.on_demand_feature_views
        if view.name in wanted
        for name in view.get_request_data_schema()
    ]
    return list(dict.fromkeys(names))


def check_columns(place: OpenStore, service: FeatureService, dataset: Dataset, argument: str) -> None:
    """Refuse rows that lack a join key or what a request needs, or have a feature already."""
    needed = {f"join key of feature view {view.name}": place.join_keys(view) for view in views_of(place, service)} | {
        "on-demand features of the service": requested(place, service)
    }
    for what, names in needed.items():
        if lacking := [name for name in names if name not in dataset.schema]:
            raise place.refuse(
                argument,
                f"there is no column {listed(lacking)} ({what})",
                f"The columns are {listed(dataset.schema, 40)}; rename or add it in the query of ingest",
            )


def refuse_hidden(
    place: OpenStore, service: FeatureService, dataset: Dataset, timestamp: str, missing: dict[str, int]
) -> None:
    """Refuse a feature view of which not one row has a value, and say what hides it."""
    for view in views_of(place, service):
        names = [each.name for each in view.features if each.name in missing]
        if not names or not dataset.rows or any(missing[name] < dataset.rows for name in names):
            continue
        assert view.batch_source is not None
        first, last = OfflineSource(place, view.batch_source, [view]).extent()
        columns = [pq.read_table(file, columns=[timestamp]).column(0) for file in dataset.files]
        extremes = [pc.min_max(column).as_py() for column in columns if len(column)]
        of_rows = f"{min(each['min'] for each in extremes)} to {max(each['max'] for each in extremes)}"
        of_features = f"its rows are of {first} to {last}" if first else "it has no rows"
        raise place.refuse(
            "service",
            f"no row has a value of feature view {view.name}: {of_features}, each holds for a TTL of {view.ttl}, "
            f"and the entities are of {of_rows}",
            "Sync rows for those times, give the view a longer ttl, or check that join keys are written alike",
        )


class _Counted:
    """Batches of the joined rows, with a count of those that lack a feature."""

    def __init__(self, files: Sequence[Path], features: Sequence[str]) -> None:
        self.schema = _plain(pq.read_schema(files[0])) if files else pa.schema([])
        self.incomplete = 0
        self._files, self._features = files, features

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in batches_of(self._files, BATCH):
            lacks = [pc.is_null(batch.column(name), nan_is_null=True) for name in self._features]
            if lacks:
                self.incomplete += pc.sum(reduce(pc.or_, lacks)).as_py() or 0
            yield batch.cast(self.schema)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema without what pandas noted in it."""
    return schema.remove_metadata()
