import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import KIND, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.features import learn_features
from penstock.components._shared.fitting.survey import Tables, survey
from penstock.components._shared.fitting.target import learn_target
from penstock.components._shared.sealed import MANIFEST, seal

ROWS = {
    "x": [1.0, None, float("nan"), 4.0, float("inf"), 6.0],
    "color": ["red", "blue", "red", None, "green", "red"],
    "y": [1, 2, 1, 2, 1, 1],
}


@pytest.fixture
def dataset(make_dataset):
    """Rows in row groups of two."""
    folder = make_dataset(ROWS)
    pq.write_table(pa.table(ROWS), folder / "part-00000.parquet", row_group_size=2)
    (folder / MANIFEST).unlink()
    schema = [{"name": field.name, "type": str(field.type)} for field in pa.table(ROWS).schema]
    seal(folder, KIND, {"rows": 6, "schema": schema, "fingerprint": "six"})
    return open_dataset(folder, "test", "dataset")


@pytest.mark.parametrize(("streamed", "parts"), [(True, [2, 2, 2]), (False, [6])])
def test_rows_come_whole_or_by_the_row_group_and_tell_the_same(streamed, parts, dataset):
    tables = Tables(dataset, ["color", "x"], streamed)
    assert [table.num_rows for table in tables] == parts
    assert tables.schema.names == tables[0].schema.names == ["color", "x"]
    seen = survey(tables, tables.schema, ["color"])
    assert (seen["x"].rows, seen["x"].missing, seen["x"].infinite) == (6, 2, True)
    assert (seen["color"].missing, dict(seen["color"].counts)) == (1, {"red": 3, "blue": 1, "green": 1})
    assert not seen["x"].counts


def test_texts_encoded_as_a_dictionary_are_counted():
    table = pa.table({"color": pa.array(["a", "b", "a", None]).dictionary_encode()})
    seen = survey([table, table], table.schema, ["color"])
    assert dict(seen["color"].counts) == {"a": 4, "b": 2}
    assert seen["color"].missing == 2


def test_identifiers_are_hashed_where_there_are_bins_for_them():
    table = pa.table({"name": [f"name {number}" for number in range(300)], "color": ["a", "b", "c"] * 100})
    seen = survey([table], table.schema, table.schema.names)
    with pytest.raises(UserError, match="'name' has 300"):
        learn_features(seen, seen, ["name", "color"], None)
    name, color = learn_features(seen, seen, ["name", "color"], None, hash_bins=50)
    assert name.description() == {"name": "name", "kind": "text", "optional": False, "bins": 50}
    assert color.description()["categories"] == ["a", "b", "c"]


def test_a_target_is_told_by_what_is_distinct_in_it():
    distinct = pa.chunked_array([pa.array([3, 1, 2])])
    assert learn_target(distinct, "y", "auto").task == "regression"
    assert learn_target(distinct, "y", "auto", rows=6).task == "multiclass"
    with pytest.raises(UserError, match="'y' has 3 distinct values in 3 rows"):
        learn_target(pa.chunked_array([pa.array(["a", "b", "c"])]), "y", "auto", rows=3)
    assert learn_target(pa.chunked_array([pa.array(["a", "b", "c"])]), "y", "auto", rows=9).classes == ("a", "b", "c")
