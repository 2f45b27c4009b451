"""Where feature repositories come from: folders, archives, object stores and git, in time and without secrets."""

import io
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from penstock.components._shared.errors import UserError
from penstock.components.features import repo as module
from penstock.components.features.repo import check_out
from penstock.components.features.store import opened
from tests.components.features.conftest import CONFIG, DEFINITIONS

FILES = {"feature_store.yaml": CONFIG, "definitions.py": DEFINITIONS}


@pytest.fixture
def scratch(tmp_path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def checked(repo: object, scratch: Path, config: str = "feature_store.yaml"):
    return check_out(str(repo), config, scratch, "sync_features")


def zipped(folder: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(f"{folder}{name}", text)
    return packed.getvalue()


def tarred(folder: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(f"{folder}{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_a_folder_is_used_where_it_is(repo, scratch):
    found = checked(repo, scratch)
    assert (found.folder, found.stays) == (repo, True)
    assert checked(f"file://{repo}", scratch).folder == repo


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("repo.zip", zipped()),
        ("repo.tar.gz", tarred()),
        ("repo.tgz", tarred("features-1.0/")),
        ("all.zip#subdirectory=team/features", zipped("team/features/")),
    ],
    ids=["zip", "tar", "top", "within"],
)
def test_an_archive_is_unpacked(tmp_path, scratch, name, content):
    (tmp_path / name.partition("#")[0]).write_bytes(content)
    found = checked(tmp_path / name, scratch)
    assert (found.folder / "definitions.py").read_text() == DEFINITIONS
    assert not found.stays


def test_a_file_that_leads_out_of_an_archive_is_not_written(tmp_path, scratch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../outside.py"))
    (tmp_path / "repo.tar").write_bytes(packed.getvalue())
    with pytest.raises(UserError, match=r"repo: repo\.tar cannot be unpacked"):
        checked(tmp_path / "repo.tar", scratch)
    assert not (tmp_path / "outside.py").exists()


def test_folders_and_archives_come_from_object_stores(bucket, scratch, tmp_path):
    for name, text in {**FILES, "more/other.py": ""}.items():
        bucket.put_object(Bucket="data", Key=f"team/features/{name}", Body=text.encode())
    bucket.put_object(Bucket="data", Key="features.zip", Body=zipped())
    found = checked("s3://data/team/features", scratch)
    assert sorted(str(file.relative_to(found.folder)) for file in found.folder.rglob("*.py")) == [
        "definitions.py",
        "more/other.py",
    ]
    (tmp_path / "other").mkdir()
    assert (checked("s3://data/features.zip", tmp_path / "other").folder / "definitions.py").exists()


@pytest.fixture
def git(tmp_path):
    """A git repository with a tag v1, and a branch on which the configuration is another."""
    folder = tmp_path / "git"
    (folder / "feature_repo").mkdir(parents=True)

    def run(*words: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    for name, text in FILES.items():
        (folder / "feature_repo" / name).write_text(text)
    run("init", "-q", "-b", "main")
    run("add", ".")
    run("commit", "-q", "-m", "one")
    run("tag", "-a", "v1", "-m", "one")
    run("checkout", "-q", "-b", "next")
    (folder / "feature_repo" / "feature_store.yaml").write_text(CONFIG.replace("shops", "others"))
    run("commit", "-q", "-a", "-m", "two")
    commit = run("rev-parse", "HEAD")
    run("checkout", "-q", "main")
    return folder, commit


def test_git_gives_branches_tags_and_commits(git, tmp_path):
    folder, commit = git
    for revision, project in (
        ("", "shops"),
        ("@v1", "shops"),
        ("@main", "shops"),
        ("@next", "others"),
        (f"@{commit}", "others"),
    ):
        (scratch := tmp_path / f"scratch{revision}").mkdir()
        found = checked(f"git+file://{folder}{revision}#subdirectory=feature_repo", scratch)
        assert f"project: {project}\n" in (found.folder / "feature_store.yaml").read_text(), revision


def test_an_unknown_revision_lists_those_that_there_are(git, scratch):
    with pytest.raises(UserError, match=r"has no branch or tag 'v2'; it has main, next, v1"):
        checked(f"git+file://{git[0]}@v2#subdirectory=feature_repo", scratch)


def test_git_that_says_nothing_is_given_up(scratch, monkeypatch):
    monkeypatch.setattr(module, "GIT_DEADLINE", 0.3)
    monkeypatch.setattr(module, "_fetch_revision", lambda *_: threading.Event().wait(20))
    with pytest.raises(UserError, match=r"cannot be fetched \(not done within 0 s"):
        checked("git+https://git.example.com/features.git@main", scratch)


@pytest.mark.parametrize(
    ("repo", "words"),
    [
        ("", ["repo: is empty", "git+https"]),
        ("no/such/folder", ["there is no no/such/folder"]),
        ("git+https://me:hidden-token@git.example.com/features.git@v1", ["git.example.com holds a user or a password"]),
        ("git+https://hidden-token@git.example.com/features.git", ["holds a user or a password", "PENSTOCK_GIT_TOKEN"]),
        ("https://me:hidden-token@example.com/features.zip", ["holds a user or a password"]),
        ("git+ssh://git@example.com/features.git", ["git+ssh:// is not known here"]),
        ("https://example.com/features", ["is no archive"]),
        ("ftp://example.com/features", ["unknown scheme ftp://"]),
        ("git+https://127.0.0.1:9/features.git", ["cannot be fetched", "PENSTOCK_GIT_USER"]),
    ],
    ids=range(9),
)
def test_what_cannot_be_had_is_told_without_its_secrets(scratch, repo, words):
    with pytest.raises(UserError) as raised:
        checked(repo, scratch)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "hidden-token" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_subdirectory_stays_within(git, scratch):
    with pytest.raises(UserError, match="leads out of it"):
        checked(f"git+file://{git[0]}#subdirectory=../..", scratch)


def test_a_copy_whose_store_would_go_away_with_it_is_refused(git):
    with (
        pytest.raises(
            UserError, match=r"registry is the relative path data/registry\.db, and git\+file.* is fetched for"
        ),
        opened(f"git+file://{git[0]}#subdirectory=feature_repo", "feature_store.yaml", "sync_features"),
    ):
        pass
