import numpy as np
import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.fitting.checkpoint import Checkpoint, checkpoint_of

ARRAYS = {"round": np.array([3, 1]), "weights": np.arange(6.0).reshape(2, 3)}


def held(checkpoint):
    found = checkpoint.load()
    return {name: values.tolist() for name, values in found.items()}


def test_what_is_saved_last_is_loaded_and_nothing_else_is_left(tmp_path):
    checkpoint = Checkpoint(str(tmp_path / "new" / "checkpoint.npz"))
    assert checkpoint.load() is None
    checkpoint.save({"round": np.array([1])})
    checkpoint.save(ARRAYS)
    assert held(checkpoint) == {"round": [3, 1], "weights": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["checkpoint.npz"]
    checkpoint.remove()
    checkpoint.remove()
    assert checkpoint.load() is None


def test_a_bucket_holds_checkpoints_too(bucket):
    checkpoint = Checkpoint(checkpoint_of("s3://data/fits/", {"seed": 1}))
    assert checkpoint.load() is None
    checkpoint.save(ARRAYS)
    (entry,) = bucket.list_objects_v2(Bucket="data")["Contents"]
    assert entry["Key"].startswith("fits/checkpoint-")
    assert held(checkpoint)["round"] == [3, 1]
    checkpoint.remove()
    assert "Contents" not in bucket.list_objects_v2(Bucket="data")


def test_another_fit_has_another_checkpoint_and_a_path_starts_where_the_run_did(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CWD", str(tmp_path))
    first, again, other = (checkpoint_of("here", {"seed": seed}) for seed in (1, 1, 2))
    assert first == again != other
    assert first.startswith(str(tmp_path / "here" / "checkpoint-"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 neither"])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"file.npz is no checkpoint .* Remove it to start anew"):
        Checkpoint(str(tmp_path / "file.npz")).load()


def test_a_pickle_in_a_checkpoint_is_refused(tmp_path):
    np.savez(tmp_path / "file.npz", weights=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="is no checkpoint"):
        Checkpoint(str(tmp_path / "file.npz")).load()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("unknown://place/x.npz", "Protocol not known: unknown"),
        ("/proc/checkpoint.npz", "/proc/checkpoint.npz: "),
    ],
)
def test_a_place_that_cannot_be_written_is_named(place, problem):
    with pytest.raises(UserError, match=f"train: checkpoint: .*{problem}"):
        Checkpoint(place).save(ARRAYS)
