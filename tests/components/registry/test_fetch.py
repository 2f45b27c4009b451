"""Models out of a registry, a folder and a bucket, whole or not at all."""

import json

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.registry.fetch import fetch
from penstock.components.registry.register import register


def files(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_model_of_the_registry_comes_back_by_alias_and_by_version(make_model, registry, tmp_path):
    model = make_model()
    register(model, {}, model_name="tips", registry=registry)
    register(make_model("other", "[3]"), {}, model_name="tips", registry=registry)
    found = fetch("models:/tips/1", tmp_path / "first", registry=registry)
    assert (found.uri, found.version) == ("models:/tips/1", "1")
    assert files(tmp_path / "first") == files(model)
    found = fetch("models:/tips@champion", tmp_path / "champion", registry=registry)
    assert (found.uri, found.version) == ("models:/tips/2", "2")
    assert files(tmp_path / "champion") == files(tmp_path / "other")


def test_a_folder_and_a_bucket_are_sources_too(make_model, bucket, tmp_path):
    model = make_model()
    assert fetch(str(model), tmp_path / "copy").version == ""
    for name, content in files(model).items():
        bucket.put_object(Bucket="data", Key=f"models/tips/{name}", Body=content)
    assert fetch("s3://data/models/tips/", tmp_path / "fetched").uri == "s3://data/models/tips/"
    assert files(tmp_path / "copy") == files(tmp_path / "fetched") == files(model)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("models:/tips", "names no version"),
        ("models:/tips@challenger", "tips has no alias challenger"),
        ("models:/none@champion", "none has no alias champion"),
        ("{model}-of-nobody", "no such folder"),
        ("ftp://host/model", "unknown scheme ftp://"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing(source, message, make_model, registry, tmp_path):
    model = make_model()
    register(model, {}, model_name="tips", registry=registry)
    with pytest.raises(UserError, match=message):
        fetch(source.format(model=model), tmp_path / "copy", registry=registry)
    assert not (tmp_path / "copy").exists()


def test_an_altered_model_and_one_that_reaches_out_of_its_folder_are_refused(make_model, bucket, tmp_path):
    model = make_model()
    (model / "data" / "weights.json").write_text("[9]")
    with pytest.raises(UserError, match=r"weights\.json was"):
        fetch(str(model), tmp_path / "copy")
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"][0]["path"] = "../outside"
    bucket.put_object(Bucket="data", Key="m/manifest.json", Body=json.dumps(manifest).encode())
    with pytest.raises(UserError, match=r"names \.\./outside, which is outside of it"):
        fetch("s3://data/m", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "outside").exists()
