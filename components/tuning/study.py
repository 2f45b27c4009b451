"""The study: Optuna's record of a search, in memory and, to outlive a kill, in a file.

Optuna recommends its journal where several processes share a file. Here one process writes it, one line a finished
trial, on disk before the next trial begins; so no trial waits for a lock, and none that has finished is lost. Any tool
that reads Optuna's journals reads this one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path
from penstock.components.tuning.search import COMPLETE, COMPONENT, FAILED, PRUNED, Objective, Trial
from penstock.components.tuning.space import Parameter, Value

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME = "penstock"
DEFINITION = "penstock:definition"
METRICS, ERROR = "penstock:metrics", "penstock:error"
FIRST = b'{"op_code":0,'  # how a journal of Optuna begins
STATES = {
    optuna.trial.TrialState.COMPLETE: COMPLETE,
    optuna.trial.TrialState.PRUNED: PRUNED,
    optuna.trial.TrialState.FAIL: FAILED,
}


def suggested(trial: optuna.trial.Trial, parameter: Parameter) -> Value:
    """Return the value that Optuna suggests for a parameter in a trial."""
    name, step = parameter.name, parameter.step
    if parameter.type == "categorical":
        return trial.suggest_categorical(name, parameter.choices)
    if parameter.type == "int":
        low, high = int(parameter.low), int(parameter.high)
        return trial.suggest_int(name, low, high, step=int(step or 1), log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, step=step, log=parameter.log)


class StudyFile:
    """The file of a study, held by one process; empty where `path` is.

    Attributes:
        trials: What was in it when it was opened.

    Raises:
        UserError: It cannot be written, is in use, is no study, or is one of another search.
    """

    def __init__(self, path: str, definition: Mapping[str, Any], objectives: tuple[Objective, ...]) -> None:
        self.trials: list[optuna.trial.FrozenTrial] = []
        self._study: optuna.Study | None = None
        self._lock: IO[bytes] | None = None
        if not path:
            return
        if "://" in path:
            raise _refuse(path, "is a URI", "Give a path that outlives the step: of a mounted bucket, share or volume")
        file = user_path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = file.open("ab+")
        except OSError as error:
            raise _refuse(path, f"cannot be written ({error.strerror})", "Give another place") from None
        _hold(self._lock, path)
        begun = _mended(self._lock, path)
        backend = JournalFileBackend(str(file), lock_obj=_Held(str(file)))
        try:
            storage = JournalStorage(backend)
            if begun:
                self._study = optuna.load_study(study_name=NAME, storage=storage)
            else:
                directions = [each.direction for each in objectives]
                self._study = optuna.create_study(study_name=NAME, storage=storage, directions=directions)
            told = self._study.user_attrs.get(DEFINITION)
        except Exception as error:  # a reader that meets foreign bytes may raise anything
            raise _refuse(path, f"is no study of tune ({error})", "Give another place") from None
        if told is None:
            if self._study.trials:
                raise _refuse(path, "is a study that tune did not write", "Give another place")
            self._study.set_user_attr(DEFINITION, json.loads(json.dumps(definition)))
        else:
            _compare(path, told, json.loads(json.dumps(definition)))
        self.trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in STATES]

    def add(self, trial: optuna.trial.FrozenTrial) -> None:
        """Write a finished trial; it is on disk when this returns."""
        if self._study is not None:
            self._study.add_trial(trial)

    def close(self) -> None:
        """Let others have the file."""
        if self._lock is not None:
            self._lock.close()


def told(trial: optuna.trial.FrozenTrial, number: int) -> Trial:
    """Return a finished trial as backends tell of it."""
    return Trial(
        number=number,
        state=STATES[trial.state],
        parameters=dict(trial.params),
        metrics=dict(trial.user_attrs.get(METRICS, {})),
        error=str(trial.user_attrs.get(ERROR, "")),
    )


class _Held(JournalFileOpenLock):
    """The lock of a journal whose file is held as a whole."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _hold(file: IO[bytes], path: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refuse(path, "is in use by another search", "Wait for it to end, or give another place") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):  # mounted buckets know no locks
            raise


def _mended(file: IO[bytes], path: str) -> bool:
    """Return whether a study was begun in a file; a last line that a kill left half-written is cut off.

    Raises:
        UserError: Something else is in it, which is left alone.
    """
    file.seek(0)
    content = file.read()
    if content and not content.startswith(FIRST[: len(content)]):
        raise _refuse(path, "is no study of tune", "Give another place")
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)
        os.fsync(file.fileno())
    return whole > 0


def _compare(path: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for name, value in here.items():
        other = there.get(name)
        if other == value:
            continue
        where = name
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            different = [key for key in sorted({*value, *other}) if value.get(key) != other.get(key)]
            where = f"{name} ({', '.join(different)})"
        raise _refuse(path, f"is the study of another search: {where} differs", "Give another place")


def _refuse(path: str, problem: str, remedy: str) -> UserError:
    return UserError(COMPONENT, "study", f"{Path(path)} {problem}", remedy)
