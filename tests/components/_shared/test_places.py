"""Files at paths and at URIs: the same answers of both."""

from contextlib import suppress

import pyarrow as pa
import pytest

from penstock.components._shared import places, remote
from penstock.components._shared.dataset import DatasetWriter, open_dataset
from penstock.components._shared.errors import UserError
from penstock.components._shared.parts import deliver, gathering, publish


@pytest.fixture(params=["path", "s3"])
def place(request, tmp_path) -> str:
    """A folder that is not there yet."""
    if request.param == "path":
        return str(tmp_path / "place")
    request.getfixturevalue("bucket")
    return "s3://data/place"


def test_what_is_written_is_read_listed_fetched_and_removed(place, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"two")
    places.write(b"one", f"{place}/a")
    places.put(source, f"{place}/b/c")
    assert places.read(f"{place}/a") == b"one"
    with places.opened(f"{place}/b/c") as file:
        assert file.read() == b"two"
    assert places.names(place) == ["a", "b/c"]
    places.fetch(place, tmp_path / "copy")
    assert (tmp_path / "copy" / "b" / "c").read_bytes() == b"two"
    places.write(b"three", f"{place}/a")
    assert places.read(f"{place}/a") == b"three"
    places.remove(place, ["a", "never there"])
    assert places.names(place) == ["b/c"]
    places.clear(place)
    assert places.names(place) == []


def test_a_folder_has_not_the_files_of_one_whose_name_begins_alike(place):
    places.write(b"", f"{place}/a")
    places.write(b"", f"{place}-else/b")
    assert places.names(place) == ["a"]


def test_a_copy_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    place = tmp_path / "a"
    place.write_bytes(b"whole")

    def fails(source, target):
        target.write_bytes(b"ha")
        raise OSError("no space")

    monkeypatch.setattr(places.shutil, "copyfile", fails)
    with pytest.raises(OSError, match="no space"):
        places.put(tmp_path / "b", str(place))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert place.read_bytes() == b"whole"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: places.write(b"", "s3://nowhere/a"), "storage: uri: there is no s3://nowhere/a"),
        (lambda: places.read("s3://data/a"), "there is no s3://data/a"),
        (
            lambda: places.write(b"", "https://data/a"),
            "https://data/a is in no store that can be written to",
        ),
        (lambda: places.read("minio://data/a"), "minio://data/a is in no store"),
    ],
)
def test_what_cannot_be_had_is_named_in_one_line(bucket, work, words):
    with pytest.raises(UserError) as error:
        work()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_store_that_refuses_says_what_was_to_be_done(bucket, monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.0)

    def refused(*given, **others):
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem.pipe_file", refused)
    with pytest.raises(UserError, match=r"s3://data/a cannot be written: Access Denied\. Check the URI, the network"):
        places.write(b"", "s3://data/a")


def test_parts_are_gathered_in_a_store_and_what_no_manifest_names_is_removed(bucket, tmp_path):
    place, rows = "s3://data/set", pa.record_batch({"a": [1, 2]})
    places.write(b"of another run", f"{place}/part-00007.parquet")
    with gathering(tmp_path / "set", place) as gathered:
        assert places.names(place) == []
        told = []
        for number in range(2):
            folder = tmp_path / f"{number}"
            folder.mkdir()
            writer = DatasetWriter(folder, rows.schema)
            writer.write(rows)
            told.append(deliver(writer, place, number))
        places.write(b"of a killed attempt", f"{place}/part-00002.parquet")
        publish(gathered, told, besides={"transformed": "x"})
    assert places.names(place) == ["part-00000.parquet", "part-00001.parquet"]
    places.fetch(place, tmp_path / "set")
    data = open_dataset(tmp_path / "set", "test", "set")
    assert (data.rows, data.transformed) == (4, "x")
    with suppress(ZeroDivisionError), gathering(tmp_path / "set", place):
        places.write(b"half", f"{place}/part-00000.parquet")
        _ = 1 / 0
    assert places.names(place) == []
    assert not (tmp_path / "set").exists()
