"""Where files come from: paths, globs, folders, web servers, object stores, samples; compressed or not."""

import bz2
import gzip
import hashlib
import lzma
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared import beam, remote
from penstock.components._shared.errors import UserError
from penstock.components.ingestion import pieces, unpack
from penstock.components.ingestion.ingest import ingest
from penstock.components.ingestion.room import check_room
from penstock.components.ingestion.sources import find
from tests.components.ingestion.conftest import PORTS
from tests.components.spreading import without_beam

CSV = "a,b\n1,x\n2,y\n"
ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESSED = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server on loopback: its address, and the files it serves by path; a file that is None hangs."""
    files: dict[str, bytes | None] = {}
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path not in files:
                self.send_error(404 if "secret" not in path else 403)
                return
            content = files[path]
            if content is None:
                over.wait(20)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content if "cut" not in path else content[: len(content) // 2])

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", files
    over.set()
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "DEADLINE", 0.5)


def test_a_glob_takes_files_in_the_order_of_their_names(file, ingested):
    file("d/2.csv", "a\n2\n")
    file("d/10.csv", "a\n10\n")
    first = file("c/1.csv", "a\n1\n")
    assert [row["a"] for row in ingested(first.parents[1] / "**" / "*.csv").train] == [1, 10, 2]


def test_a_folder_is_the_files_in_it_but_for_hidden_ones_and_marks_of_other_tools(file, ingested):
    file("d/part-1.csv", "a\n1\n")
    file("d/_SUCCESS", "")
    folder = file("d/.part-1.csv.crc", "x").parent
    assert ingested(folder).train == [{"a": 1}]


def test_a_name_with_signs_of_a_glob_or_blanks_is_still_a_name(file, ingested):
    assert ingested(file("what [1]?'s *.csv", CSV)).train == ROWS


def test_a_dataset_is_a_source_and_is_verified(file, ingested, refused):
    dataset = ingested(file("t.csv", CSV)).folder / "train_set"
    assert ingested(dataset).train == ROWS
    part = dataset / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    assert "part-00000.parquet was truncated" in str(refused(dataset))


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_files_are_read(file, ingested, suffix):
    assert ingested(file(f"t.csv.{suffix}", COMPRESSED[suffix](CSV.encode()))).train == ROWS


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_truncated_compressed_file_is_refused_not_taken_for_a_shorter_one(file, refused, suffix):
    content = COMPRESSED[suffix]("".join(f"{n},{n * n}\n" for n in range(100_000)).encode())
    error = refused(file(f"t.csv.{suffix}", content[: len(content) // 2]))
    assert error.argument == "source"
    assert f"t.csv.{suffix} cannot be decompressed" in error.problem
    assert "cannot be decompressed" in str(refused(file(f"u.csv.{suffix}", CSV)))


def test_other_compressions_are_refused_by_name(file, refused):
    assert "compressed as zip" in str(refused(file("t.csv.zip", "PK")))


def test_the_line_of_a_bad_row_is_that_of_the_file_before_compression(file, ingested):
    source = file("t.csv.gz", gzip.compress(b"a,b\n1,x\n2\n"))
    [reject] = ingested(source, max_bad_rows=1).rejects
    assert (reject["file"], reject["line"]) == (str(source), 3)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "is empty"),
        ("nowhere.csv", "there is no file nowhere.csv"),
        ("nowhere/*.csv", "no file matches nowhere/*.csv"),
        ("ftp://host/x.csv", "unknown scheme ftp://"),
        ("sample://taxis", "there is no sample 'taxis'. The samples are taxi"),
        ("sample://taxi?row=5", "row=5 in sample://taxi?row=5 means nothing"),
        ("sample://taxi?rows=0", "rows=0 in sample://taxi?rows=0 means nothing"),
    ],
)
def test_a_source_that_is_not_there_says_what_can_be_given(refused, source, words):
    error = refused(source)
    assert error.argument == "source"
    assert words in str(error)


def test_an_empty_folder_and_mixed_formats_are_refused(file, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no file" in str(refused(tmp_path / "empty"))
    file("1.csv", CSV)
    other = file("2.jsonl", "{}\n")
    assert "files of the formats csv, jsonl" in str(refused(other.parent))


def test_an_unknown_suffix_asks_for_the_format(file, refused, ingested):
    source = file("t.dat", CSV)
    assert refused(source).argument == "format"
    assert ingested(source, format="csv").train == ROWS
    assert "unknown format 'xml'" in str(refused(source, format="xml"))
    assert "unknown encoding 'ebcdic'" in str(refused(source, format="csv", encoding="ebcdic"))


def test_sample_data_needs_no_file(ingested):
    outcome = ingested("sample://taxi?rows=1200&seed=3")
    assert outcome.result.train_rows == 1200
    assert outcome.types["congestion_surcharge"] == "double"
    assert outcome.result.fingerprint != ingested("sample://taxi?rows=1200").result.fingerprint


def test_a_file_is_fetched_from_a_web_server(server, ingested):
    address, files = server
    files["/data/t.csv.gz"] = gzip.compress(CSV.encode())
    assert ingested(f"{address}/data/t.csv.gz?token=hush").train == ROWS


def test_each_worker_of_beam_fetches_its_file(server, ingested):
    address, files = server
    files["/t.csv.gz"] = gzip.compress(CSV.encode())
    with without_beam():
        assert ingested(f"{address}/t.csv.gz", engine="beam").train == ROWS


def test_of_a_large_object_each_worker_of_beam_fetches_only_its_piece(bucket, ingested, monkeypatch):
    numbers = range(5000)
    sink = pa.BufferOutputStream()
    table = pa.table({"a": numbers, "b": [f"x{number}" for number in numbers]})
    pq.write_table(table, sink, row_group_size=500)
    objects = {
        "0.parquet": sink.getvalue().to_pybytes(),
        "0.csv": "".join(["a,b\n", *(f"{number},x{number}\n" for number in numbers)]).encode(),
        "0.jsonl": "".join(f'{{"a": {number}, "b": "x{number}"}}\n' for number in numbers).encode(),
    }
    for name, content in objects.items():
        bucket.put_object(Bucket="data", Key=name, Body=content)
    read: list[int] = []
    range_of = remote.Remote.read

    def counted(self: remote.Remote, begin: int, end: int) -> bytes:
        read.append(end - begin)
        return range_of(self, begin, end)

    monkeypatch.setattr(remote.Remote, "read", counted)
    for name, content in objects.items():
        monkeypatch.setattr(pieces, "LEAST", len(content) // 5)
        monkeypatch.setattr(pieces, "_BLOCK", 1000)
        read.clear()
        with without_beam():
            outcome = ingested(f"s3://data/{name}", engine="beam")
        assert outcome.train == table.to_pylist()
        assert len(list((outcome.folder / "train_set").glob("part-*"))) == pytest.approx(5, abs=1)
        # Each twice, as after a retry, and with it the header or the metadata.
        assert 2 * len(content) - 100 < sum(read) < 3.2 * len(content)
        assert max(read) < len(content) / 2


def test_what_a_web_server_refuses_is_told_without_the_secrets_of_the_uri(server, refused, quick):
    address, _ = server
    missing = refused(f"{address}/t.csv?token=hush")
    assert "there is no http://127.0.0.1" in missing.problem
    forbidden = refused(f"{address.replace('//', '//me:hush@')}/secret.csv?token=hush")
    assert "403" in forbidden.problem
    assert "hush" not in f"{missing}{forbidden}"


def test_a_server_that_falls_silent_or_cuts_off_is_given_up(server, refused, quick):
    address, files = server
    files["/silent.csv"] = None
    files["/cut.csv"] = b"a\n" + b"1\n" * 100_000
    begun = time.monotonic()
    error = refused(f"{address}/silent.csv")
    assert "nothing came for" in error.problem
    assert time.monotonic() - begun < 10
    assert "cut.csv cannot be read" in refused(f"{address}/cut.csv").problem


def test_nobody_listening_is_one_line(refused, quick):
    assert "cannot be read" in refused("http://127.0.0.1:9/t.csv").problem


def test_objects_are_fetched_from_s3_by_name_by_glob_and_by_folder(bucket, ingested, refused, quick):
    for name, text in {"x/1.csv": "a\n1\n", "x/2.csv": "a\n2\n", "x/_SUCCESS": "", "y/3.csv": "a\n3\n"}.items():
        bucket.put_object(Bucket="data", Key=name, Body=text.encode())
    assert [row["a"] for row in ingested("s3://data/x/2.csv").train] == [2]
    assert [row["a"] for row in ingested("s3://data/*/*.csv").train] == [1, 2, 3]
    assert [row["a"] for row in ingested("s3://data/x").train] == [1, 2]
    assert "no file matches s3://data/z/*.csv" in str(refused("s3://data/z/*.csv"))
    assert "there is no s3://data/x/9.csv" in str(refused("s3://data/x/9.csv"))
    bucket.put_object(Bucket="data", Key="bad.csv", Body=b"a,b\n1,x\n2\n")
    [reject] = ingested("s3://data/bad.csv", max_bad_rows=1).rejects
    assert reject["file"] == "s3://data/bad.csv"


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("s3", "s3"), ("abfss", "azure-storage")])
def test_a_store_whose_package_is_missing_ends_in_the_pip_line(refused, monkeypatch, scheme, extra):
    def missing(*_: object, **__: object) -> None:
        raise ImportError(f"Install it to access {scheme}")

    monkeypatch.setattr(remote.fsspec.core, "url_to_fs", missing)
    assert str(refused(f"{scheme}://bucket/x.csv")).endswith(f"Run pip install 'penstock[{extra}]'.")


def test_the_scratch_folder_is_removed_after_success_and_after_failure(file, ingested, refused, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    ingested(file("t.csv.gz", gzip.compress(CSV.encode())))
    refused(file("u.csv.gz", gzip.compress(b"a,b\n1\n")))
    assert list(scratch.iterdir()) == []


NOISE = "a,b\n" + "".join(f"{hashlib.sha256(b'%d' % n).hexdigest()},{n}\n" for n in range(30_000))  # 2 MB


@pytest.mark.parametrize("engine", beam.ENGINES)
@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("t.csv.gz", gzip.compress(("a,b\n" + "1,x\n" * 500_000).encode()), "utf-8"),  # 5 kB, of which 2 MB come
        ("t.csv.bz2", bz2.compress((NOISE * 3).encode()), "utf-8"),
        ("t.csv", NOISE.encode(), "latin-1"),
        ("t.csv", NOISE.encode("utf-16"), "utf-16"),
    ],
    ids=["gz", "bz2", "latin-1", "utf-16"],
)
def test_files_that_do_not_fit_on_the_disk_once_they_are_plain_are_refused_before(
    file, refused, small_disk, monkeypatch, name, content, encoding, engine
):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    monkeypatch.setattr(unpack, "lay_out", None)  # not even tried
    with without_beam():
        error = refused(file(name, content), encoding=encoding, engine=engine)
    assert error.argument == "source"
    assert "its files, fetched and unpacked, take at least " in error.problem
    assert error.problem.endswith("where 1 MB are free")
    assert "TMPDIR" in error.remedy
    assert ('set engine to "beam"' in error.remedy) == (engine == "local")


def test_files_are_counted_together_on_one_machine_only(file, small_disk, tmp_path):
    for number in range(3):
        source = file(f"d/{number}.csv.gz", gzip.compress(("a,b\n" + "1,x\n" * 100_000).encode())).parent
    found = find(str(source), "auto", "utf-8", tmp_path)
    check_room(found, "utf-8", "", small_disk, tmp_path, together=False)
    with pytest.raises(UserError, match="take at least 1 MB in "):
        check_room(found, "utf-8", "", small_disk, tmp_path, together=True)


def test_of_an_object_that_is_far_away_the_size_is_told_by_its_store(bucket, refused, small_disk, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    bucket.put_object(Bucket="data", Key="t.csv", Body=NOISE.encode())
    assert "take at least 2 MB" in refused("s3://data/t.csv").problem


def test_sets_that_hardly_fit_are_warned_of_and_written_where_they_do(file, small_disk, capsys):
    source = file("t.csv", "a,b\n" + "1,always the same\n" * 400_000)
    ports = [small_disk / port for port in PORTS]
    assert ingest(str(source), *ports, eval_fraction=0).train_rows == 400_000
    said = capsys.readouterr().err
    assert said.startswith("warning: ingest: source: the source's files, laid out, and both sets usually take 1 MB in ")
    assert f"{small_disk}/train_set, where 1 MB are free. Give the step a larger disk" in said
    assert said.count("\n") == 1
    ingest(str(source), *ports, query="SELECT a FROM source", eval_fraction=0)  # of which nobody knows
    assert not capsys.readouterr().err


def test_parquet_files_are_joined_by_name_and_keep_their_types(file, ingested):
    first, second = file("1.parquet", ""), file("2.parquet", "")
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}), first)
    pq.write_table(pa.table({"b": ["y"], "a": pa.array([2], pa.int32()), "c": [0.5]}), second)
    outcome = ingested(first.parent)
    assert outcome.types == {"a": "int32", "b": "string", "c": "double"}
    assert outcome.train == [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": "y", "c": 0.5}]


def test_a_damaged_parquet_file_is_named(file, refused):
    good, bad = file("1.parquet", ""), file("2.parquet", "")
    table = pa.table({"a": list(range(100_000))})
    pq.write_table(table, good)
    pq.write_table(table, bad)
    content = bytearray(bad.read_bytes())
    bad.write_bytes(content[:-10])
    assert f"{bad} is no whole Parquet file" in str(refused(good.parent))
    content[1000:200_000] = bytes(199_000)
    bad.write_bytes(content)
    assert f"{bad} cannot be read" in str(refused(good.parent))


def test_parquet_without_rows_and_types_for_parquet_are_refused(file, refused):
    source = file("t.parquet", "")
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), source)
    assert "no rows" in str(refused(source))
    assert refused(source, columns={"a": "BIGINT"}).argument == "columns"
