"""Reading what others wrote, and refusing what does not parse."""

import http.server
import threading
import time

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.schema_pb2 import Schema
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

from penstock.components._shared.errors import UserError
from penstock.components._shared.messages import read_statistics
from penstock.components.validation import files

TEXT = 'feature { name: "ü" type: INT }  # by hand\n'


def test_a_schema_is_read_as_text_and_in_binary(tmp_path):
    schema = text_format.Parse(TEXT, Schema())
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "binary").write_bytes(schema.SerializeToString())
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert [files.read_schema(tmp_path / name, "given_schema") for name in ("text", "binary", "bom")] == [schema] * 3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'feature {\n  name: "x"\n  typ: INT\n}\n', 'line 3, column 3: .* no field named "typ"'),
        (b'feature {\n  name: "x"\n', "line 2, column 9: Expected"),
        (b"feature {\n  type: NUMBER\n}", "line 2, column 9: .*NUMBER"),
        (b"a,b\n1,2\n", "line 1, column 1: .*no field named"),
        (b'feature { name: "a" }\nfeature { name: "\xff" }', "line 2: not UTF-8"),
        (b"\x00\x01\x02", "neither text nor binary"),
        (b"\x0a\xff\xff\x01\x00", "neither text nor binary"),
        (b"", "empty schema"),
    ],
)
def test_a_schema_that_does_not_parse_is_refused_with_its_line(tmp_path, content, problem):
    path = tmp_path / "schema.pbtxt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"validate: given_schema: {path} is .*{problem}") as refused:
        files.read_schema(path, "given_schema")
    assert "\n" not in str(refused.value)


X = 'feature { name: "x" type: INT } '


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (X + X, "the feature 'x' is there 2 times"),
        (X + "feature { type: INT }", "the feature in place 2 has no name"),
        (X + 'string_domain { name: "d" } string_domain { name: "d" }', "the string_domain 'd' is there 2 times"),
        (
            X + 'sparse_feature { name: "s" index_feature { name: "x" } value_feature { name: "v" } }',
            "the sparse_feature 's' refers to a feature 'v', which is not there",
        ),
        (
            X + 'tensor_representation_group { key: "" value { tensor_representation { key: "t" value { '
            'ragged_tensor { feature_path { step: "r" } } } } } }',
            "the tensor_representation 't' refers to a feature 'r', which is not there",
        ),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused_by_the_feature(tmp_path, content, problem):
    path = tmp_path / "schema.pbtxt"
    path.write_text(content)
    with pytest.raises(UserError, match=f"validate: given_schema: {path}: {problem}. Mend the schema; TFX would"):
        files.read_schema(path, "given_schema")


def test_references_to_what_is_there_are_none(tmp_path):
    (tmp_path / "schema.pbtxt").write_text(
        X + 'sparse_feature { name: "s" index_feature { name: "x" } value_feature { name: "x" } } '
        'tensor_representation_group { key: "" value { tensor_representation { key: "t" value { '
        'varlen_sparse_tensor { column_name: "x" } } } } }'
    )
    assert files.read_schema(tmp_path / "schema.pbtxt", "given_schema").sparse_feature[0].name == "s"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"schema_uri: .*none.pbtxt cannot be read: No such file"):
        files.fetch_schema(str(tmp_path / "none.pbtxt"), "schema_uri")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        files.read_schema(tmp_path, "given_schema")


@pytest.fixture
def server():
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/slow":
                over.wait(60)
            content = b"x" * (files.SCHEMA_BYTES + 1) if self.path == "/large" else TEXT.encode()
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    over.set()
    served.shutdown()


def test_a_schema_is_fetched(server, tmp_path):
    assert files.fetch_schema(f"{server}/schema.pbtxt", "schema_uri").feature[0].name == "ü"
    (tmp_path / "schema.pbtxt").write_text(TEXT)
    assert files.fetch_schema((tmp_path / "schema.pbtxt").as_uri(), "schema_uri").feature[0].name == "ü"


@pytest.mark.parametrize(
    ("path", "problem"), [("/none", "cannot be read: FileNotFoundError"), ("/large", "is larger than 16 MiB")]
)
def test_a_schema_that_cannot_be_had_is_refused(server, path, problem):
    with pytest.raises(UserError, match=f"schema_uri: {server}{path} {problem}"):
        files.fetch_schema(server + path, "schema_uri")


def test_a_server_that_takes_its_time_is_not_waited_for(server):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"was not read within 0.2 s"):
        files.fetch_schema(f"{server}/slow", "schema_uri", seconds=0.2)
    assert time.monotonic() - start < 20


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UserError, match=r"schema_uri: gopher://x/y cannot be read: ValueError"):
        files.fetch_schema("gopher://x/y", "schema_uri")


def test_statistics_are_read_in_binary_and_as_text(tmp_path):
    statistics = DatasetFeatureStatisticsList()
    statistics.datasets.add(num_examples=7)
    files.write_binary(statistics, tmp_path / "binary")
    files.write_text(statistics, tmp_path / "text")
    for name in ("binary", "text"):
        assert read_statistics(tmp_path / name, "validate", "previous_statistics").num_examples == 7


def test_of_slices_the_whole_is_taken(tmp_path):
    statistics = DatasetFeatureStatisticsList()
    statistics.datasets.add(name="country_AT", num_examples=1)
    statistics.datasets.add(name="All Examples", num_examples=7)
    files.write_binary(statistics, tmp_path / "sliced")
    assert read_statistics(tmp_path / "sliced", "validate", "previous_statistics").num_examples == 7
    statistics.datasets[1].name = "country_DE"
    files.write_binary(statistics, tmp_path / "slices")
    with pytest.raises(UserError, match=r"has only the slices 'country_AT', 'country_DE'"):
        read_statistics(tmp_path / "slices", "validate", "previous_statistics")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"PAR1....", b"a,b\n1,2\n"])
def test_statistics_that_do_not_parse_are_refused(tmp_path, content):
    (tmp_path / "statistics").write_bytes(content)
    with pytest.raises(UserError, match=r"previous_statistics: .*statistics (is no|holds no) .*Give a Dataset"):
        read_statistics(tmp_path / "statistics", "validate", "previous_statistics")


def test_nothing_half_written_is_left(tmp_path):
    files.write_text(text_format.Parse(TEXT, Schema()), tmp_path / "deep" / "schema")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["schema"]
    assert "ü" in (tmp_path / "deep" / "schema").read_text()
