"""Secrets and ConfigMaps are read from ordinary manifests, and no error shows what is in them."""

import base64
import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.compile.errors import PenstockError
from penstock.compile.targets.local import objects

CANARY = "hunter2-canary"


def read(tmp_path, *texts: str) -> objects.Objects:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(text)
    return objects.read(paths)


def secret(name: str = "db", **fields) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, **fields})


def test_documents_lists_and_all_four_kinds_of_data_are_read(tmp_path):
    found = read(
        tmp_path,
        f"""
apiVersion: v1
kind: Secret
metadata: {{name: db, namespace: kubeflow, labels: {{a: b}}}}
type: Opaque
immutable: true
data:
  user: {base64.b64encode(b"me").decode()}
  raw: {base64.b64encode(bytes(range(256))).decode()}
stringData:
  user: you
  empty:
---
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {{name: conf}}
  data: {{level: debug, "a.b-c_d": "1"}}
  binaryData: {{blob: /w==}}
""",
        secret("other", data={"x": "\n eA==\n"}),
    )
    assert found.secrets == {
        "db": {"user": b"you", "raw": bytes(range(256)), "empty": b""},
        "other": {"x": b"x"},
    }
    assert found.of("ConfigMap") == {"conf": {"level": b"debug", "a.b-c_d": b"1", "blob": b"\xff"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected manifests"),
        (f"- {CANARY}", "expected manifests of Secrets and ConfigMaps, found list"),
        (f"password: {CANARY}", "a document without a kind: only Secret, ConfigMap and lists of them"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}", "kind Pod: only Secret, ConfigMap"),
        ("apiVersion: v2\nkind: Secret\nmetadata: {name: x}", "Secret: its apiVersion is not v1"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}", "a Secret has no metadata.name"),
        ("kind: List\nitems: {}", "kind List: its items are not a list"),
        (secret(datas={"a": CANARY}), "Secret db: unknown field datas; there are data, stringData, type"),
        (secret(binaryData={"a": CANARY}), "Secret db: unknown field binaryData"),
        (secret(data={"a": CANARY}), "Secret db: the value of a is not base64; plain text goes under stringData"),
        (secret(data={"a": "e"}), "Secret db: the value of a is not base64"),
        (secret(stringData={"a": {"b": CANARY}}), "Secret db: stringData: the value of a is not text; put it between"),
        (secret(stringData={"port": 5432}), "stringData: the value of port is not text"),
        (secret(stringData=CANARY), "Secret db: stringData is not an object"),
        (secret(stringData={f"../{CANARY}": "x"}), "Secret db: stringData: key 1 is not text of letters"),
        (secret(stringData={"..data": "x"}), "key 1 is not text"),
        (f"kind: Secret\nstringData: {{a: {CANARY}, a: {CANARY}}}", "not YAML, or a key is given twice at line 2"),
        (f"kind: Secret\nstringData:\n  a: '{CANARY}\n", "not YAML, or a key is given twice at line"),
        (f"kind: Secret\nstringData:\n  a: *{CANARY}\n", "not YAML, or a key is given twice at line 3, column 6"),
        (f"kind: Secret\nstringData: {{a: \x01{CANARY}}}", "not YAML"),
    ],
)
def test_what_is_no_manifest_is_refused_by_file_and_place_without_its_content(tmp_path, text, message):
    with pytest.raises(PenstockError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / '0.yaml'}: ")
    assert message in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_an_object_that_is_there_twice_is_refused_with_both_files(tmp_path):
    with pytest.raises(PenstockError, match=rf"1\.yaml: Secret db is in {tmp_path}/0\.yaml already"):
        read(tmp_path, secret(), secret())
    both = read(tmp_path, secret("x"), secret("x").replace("Secret", "ConfigMap"))
    assert both.secrets.keys() == both.config_maps.keys() == {"x"}


def test_files_that_cannot_be_read_are_named_in_one_line(tmp_path):
    (tmp_path / "latin").write_bytes(f"é {CANARY}".encode("latin-1"))
    for path, message in (
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "latin", "it is not UTF-8 text"),
    ):
        with pytest.raises(PenstockError, match=message) as caught:
            objects.read([path])
        assert str(caught.value).startswith(f"{path}: cannot be read: ")
        assert CANARY not in "".join(traceback.format_exception(caught.value))


VALUES = st.one_of(st.text(), st.integers(), st.none(), st.booleans(), st.lists(st.text()), st.dates().map(str))


@given(
    st.dictionaries(st.sampled_from(["a", "b", "../c", "d e", ""]), VALUES),
    st.sampled_from(["data", "stringData", "binaryData", "other"]),
    st.sampled_from(["Secret", "ConfigMap", "Pod"]),
)
def test_a_value_is_never_shown_however_wrong_the_manifest(tmp_path_factory, content, where, kind):
    marked = {key: f"{CANARY}{value}" if isinstance(value, str) else [value, CANARY] for key, value in content.items()}
    path = tmp_path_factory.mktemp("objects") / "file.yaml"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, where: marked}))
    try:
        shown = repr(objects.read([path]))
    except PenstockError as error:
        shown = "".join(traceback.format_exception(error))
    assert CANARY not in shown
