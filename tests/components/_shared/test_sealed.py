"""Sealed folders: whole or not at all, and whatever was altered is refused by name."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from penstock.components._shared.errors import UserError
from penstock.components._shared.sealed import MANIFEST, new_folder, seal, unseal

KIND = "test/1"


@pytest.fixture
def folder(tmp_path):
    with new_folder(tmp_path / "d") as folder:
        (folder / "inner").mkdir()
        (folder / "a.bin").write_bytes(bytes(range(256)))
        (folder / "inner" / "b.txt").write_text("b")
        seal(folder, KIND, {"rows": 3})
    return folder


def refusal(folder, kind=KIND) -> str:
    with pytest.raises(UserError) as raised:
        unseal(folder, kind, "train", "train_set")
    assert str(raised.value).startswith(f"train: train_set: {folder}: ")
    assert str(raised.value).endswith("Run the step that writes it again.")
    return raised.value.problem


def test_a_sealed_folder_gives_its_facts_and_names_every_file(folder):
    manifest = unseal(folder, KIND, "train", "train_set")
    assert manifest["rows"] == 3
    assert [(file["path"], file["bytes"]) for file in manifest["files"]] == [("a.bin", 256), ("inner/b.txt", 1)]


def test_a_missing_or_unfinished_folder_is_refused(tmp_path, folder):
    assert "no such folder" in refusal(tmp_path / "nothing")
    (folder / MANIFEST).unlink()
    assert "was never finished" in refusal(folder)


def test_another_kind_is_refused(folder):
    assert "is of kind 'test/1', not 'test/2'" in refusal(folder, "test/2")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": 5}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / MANIFEST).write_text(text)
    refusal(folder)


def test_what_is_missing_extra_truncated_or_extended_is_named(folder):
    (folder / "extra").touch()
    assert "extra is not in the manifest" in refusal(folder)
    (folder / "extra").unlink()
    with (folder / "a.bin").open("ab") as file:
        file.write(b"x")
    assert "a.bin was truncated or extended" in refusal(folder)
    os.truncate(folder / "a.bin", 255)
    assert "a.bin was truncated or extended" in refusal(folder)
    (folder / "a.bin").unlink()
    assert "a.bin is missing" in refusal(folder)


def test_every_flipped_bit_is_found(folder):
    rnd = random.Random(0)
    content = (folder / "a.bin").read_bytes()
    for _ in range(50):
        altered = bytearray(content)
        altered[rnd.randrange(256)] ^= 1 << rnd.randrange(8)
        (folder / "a.bin").write_bytes(altered)
        assert "a.bin was altered" in refusal(folder)
    (folder / "a.bin").write_bytes(content)
    assert unseal(folder, KIND, "train", "train_set")["rows"] == 3


def test_what_was_there_before_is_gone_and_a_failure_leaves_nothing(folder):
    def fail() -> None:
        with new_folder(folder) as again:
            assert list(again.iterdir()) == []
            (again / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not folder.exists()


def test_nan_does_not_enter_a_manifest(tmp_path):
    with pytest.raises(ValueError, match="JSON"), new_folder(tmp_path / "d") as folder:
        seal(folder, KIND, {"rows": float("nan")})
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_killed_at_any_moment_a_folder_is_whole_or_refused(tmp_path):
    script = (
        "import sys; from pathlib import Path; from penstock.components._shared.sealed import new_folder, seal\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    with new_folder(sys.argv[1]) as folder:\n"
        "        for n in range(5): (folder / str(n)).write_bytes(bytes([n]) * 200_000)\n"
        "        seal(folder, 'test/1', {'rows': 5})\n"
    )
    rnd, whole = random.Random(0), 0
    for number in range(10):
        process = subprocess.Popen([sys.executable, "-c", script, tmp_path / str(number)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(rnd.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / str(number) / MANIFEST).exists():
            whole += 1
            manifest = unseal(tmp_path / str(number), KIND, "test", "folder")
            assert len(manifest["files"]) == 5
            json.dumps(manifest)
        else:
            refusal(tmp_path / str(number))
    assert whole < 10
