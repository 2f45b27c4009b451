"""Files that are read on one machine or on Beam: the choice is a parameter, so one spec carries both."""

from typing import Any, Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import Dataset

from penstock.components import ingest
from penstock.components.images import image
from penstock.pipelines.branches import number_apart


class Ingested(NamedTuple):
    """The rows of the files."""

    train_set: Dataset
    eval_set: Dataset


@dsl.pipeline(name="ingested")
def ingested(
    source: str,
    query: str = "",
    columns: Dict[str, str] = {},
    split_keys: List[str] = [],
    eval_fraction: float = 0.2,
    time_column: str = "",
    eval_from: str = "",
    max_bad_rows: int = 0,
    engine: str = "local",
    beam_options: Dict[str, Any] = {"runner": "DirectRunner"},
) -> Ingested:
    """Read files into a training and an evaluation dataset, on one machine or on Beam, each in its own image.

    Args:
        source: Path, glob or URI of the files; see ingest.
        query: SQL SELECT over the table `source`. Empty: all columns of all rows.
        columns: SQL type by column name, where inference is not wanted.
        split_keys: Columns whose values decide which split a row is in. Empty: the whole row.
        eval_fraction: Share of the rows to evaluate on.
        time_column: Column to split by time instead.
        eval_from: First time of the evaluation set.
        max_bad_rows: Bad rows that are put up with.
        engine: "beam" for Beam; anything else is for `ingest` itself.
        beam_options: Beam's own options, the runner among them.

    Returns:
        train_set: Rows to train on.
        eval_set: Rows to measure on.
    """
    number_apart()
    given = {
        "source": source,
        "query": query,
        "columns": columns,
        "split_keys": split_keys,
        "eval_fraction": eval_fraction,
        "time_column": time_column,
        "eval_from": eval_from,
        "max_bad_rows": max_bad_rows,
        "engine": engine,
        "beam_options": beam_options,
    }
    with dsl.If(engine != "beam", name="on-one-machine"):
        here = ingest(**given)
    with dsl.Else(name="on-beam"):
        there = ingest(**given).set_container_image(image("beam")).set_display_name("ingest on Beam")
    return Ingested(
        train_set=dsl.OneOf(here.outputs["train_set"], there.outputs["train_set"]),
        eval_set=dsl.OneOf(here.outputs["eval_set"], there.outputs["eval_set"]),
    )
