"""Runs `sync`, killed at one place after another, and again: python -m tests.components.features.killing FOLDER.

Each run is a fork of this process, which has imported Feast once and started no thread. Writes outcomes.json.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import duckdb
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry import Registry

from penstock.components.features import materialize, store, stored, sync, writers
from penstock.components.features.online import served

KEEP = (duckdb, SqliteOnlineStore, materialize, writers)  # imported before the first fork


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str) -> Callable[[], None]:
    return lambda: setattr(owner, name, die)


def after(owner: object, name: str, times: int = 1) -> Callable[[], None]:
    def arrange() -> None:
        real, count = getattr(owner, name), 0

        def then(*arguments: object, **named: object) -> object:
            nonlocal count
            result = real(*arguments, **named)
            count += 1
            if count == times:
                die()
            return result

        setattr(owner, name, then)

    return arrange


PLACES = {
    "before the registry is written": before(FileRegistryStore, "_write_registry"),
    "while the registry's file is replaced": before(os, "replace"),
    "after the definitions": after(store, "apply_total_with_repo_instance"),
    "before rows are put in place": before(stored, "_put"),
    "while rows are put in place": before(Path, "replace"),
    "after rows are in place": after(stored, "_put"),
    "before the first view": before(sync, "materialize"),
    "after the first view": after(sync, "materialize"),
    "online but not noted": before(Registry, "apply_materialization"),
    "noted, second view": after(Registry, "apply_materialization", 2),
    "before the sample": before(sync, "_verify"),
    "before rows are marked as online": before(stored.OfflineSource, "settle"),
}


def forked(work: Callable[[], object], outcome: Path) -> int:
    """Do the work in a fork, and return the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            outcome.write_text(json.dumps(work(), default=str))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.waitstatus_to_exitcode(status)


def run(folder: Path, repo: Path) -> dict[str, object]:
    result = sync.sync(folder / "features", str(repo))
    with store.opened(str(repo), "feature_store.yaml", "test") as place:
        online = [
            found.values for found in served(place, ["counts:sold", "prices:price"], [{"shop": "a"}, {"shop": "b"}])
        ]
    files = sorted((repo / "data" / "sales").glob("*.parquet"))
    rows = sum(duckdb.read_parquet(str(file)).count("*").fetchone()[0] for file in files)
    return {
        "changes": len(result.changes), "added": result.added, "materialized": sorted(result.materialized),
        "resumed": result.resumed, "online": online, "rows": rows, "files": [file.name[:5] for file in files],
    }  # fmt: skip


def main(folder: Path) -> None:
    outcomes = {}
    for number, (name, arrange) in enumerate(PLACES.items()):
        repo, outcome = folder / f"repo-{number}", folder / f"outcome-{number}.json"

        def killed(arrange: Callable[[], None] = arrange, repo: Path = repo) -> object:
            arrange()
            return run(folder, repo)

        ended = forked(killed, outcome)
        runs = []
        for _ in range(2):
            code = forked(lambda repo=repo: run(folder, repo), outcome)
            runs.append(json.loads(outcome.read_text()) if code == 0 else code)
        outcomes[name] = {"ended": ended, "runs": runs}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
