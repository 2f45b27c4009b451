"""What becomes of columns: a user's preprocessing_fn, or one made of a declaration."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.components._shared import remote
from penstock.components._shared.errors import UserError
from penstock.components._shared.paths import user_path

COMPONENT = "transform"
FUNCTION = "preprocessing_fn"

Preprocessing = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A way to transform a column.

    Attributes:
        takes: "number", "text" or both: what columns hold that it is for.
        least: Least number that it is given, as in {"bucketize": 10}; None: it is given none.
        needs_number: Whether it has to be given one.
        apply: From column, number and name to the transformed column; sparse where the column is.
        missing: What stands for missing values afterwards.
    """

    takes: Sequence[str]
    least: int | None
    needs_number: bool
    apply: Callable[[Any, int, str], Any]
    missing: float


def _scale(column: Any, number: int, name: str) -> Any:
    import tensorflow_transform as tft

    return tft.scale_to_z_score(column)


def _bucketize(column: Any, number: int, name: str) -> Any:
    import tensorflow_transform as tft

    return tft.bucketize(column, number)


def _vocabulary(column: Any, number: int, name: str) -> Any:
    import tensorflow_transform as tft

    # One word beyond the last stands for all that training has not seen.
    return tft.compute_and_apply_vocabulary(column, top_k=number or None, num_oov_buckets=1, vocab_filename=name)


def _hash(column: Any, number: int, name: str) -> Any:
    import tensorflow_transform as tft

    return tft.hash_strings(column, number)


def _keep(column: Any, number: int, name: str) -> Any:
    return column


KINDS: Mapping[str, Kind] = {
    "scale": Kind(("number",), None, False, _scale, 0.0),  # the mean
    "bucketize": Kind(("number",), 2, True, _bucketize, -1),
    "vocabulary": Kind(("text", "whole number"), 1, False, _vocabulary, -1),
    "hash": Kind(("text",), 2, True, _hash, -1),
    "keep": Kind(("number", "text"), None, False, _keep, 0),
}


def load(source: str) -> Preprocessing:
    """Return the function preprocessing_fn of a Python file, which is run for that.

    Args:
        source: Path or URI.

    Raises:
        UserError: It cannot be read or run, or has no such function.
    """

    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(COMPONENT, "preprocessing_uri", problem, remedy)

    with tempfile.TemporaryDirectory(prefix="penstock-transform-") as scratch:
        path = user_path(source)
        if "://" in source:
            found = remote.find(source, refuse)
            if len(found) != 1:
                raise refuse(f"{source} is {len(found)} files", "Give one file of Python")
            path = Path(scratch, "preprocessing.py")
            found[0].fetch(path)
        try:
            code = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise refuse(f"{source} cannot be read: {error}", "Give a file of Python") from None
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("preprocessing", loader=None))  # type: ignore[arg-type]
    try:
        exec(compile(code, source, "exec"), vars(module))  # noqa: S102  it is the user's program, and runs as such
    except Exception as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        problem = f"{source} cannot be run: {type(error).__name__}: {error}{where}"
        raise refuse(problem, "Try it with `python FILE` in the image penstock/beam") from error
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise refuse(f"{source} has no function {FUNCTION}", f"Define {FUNCTION}(inputs), which returns a dict")
    return function


def declared(features: Mapping[str, Any], keep: Sequence[str], columns: Mapping[str, str]) -> Preprocessing:
    """Return the preprocessing_fn that a declaration describes.

    Args:
        features: Kind by column, or {kind: number}. Empty: "scale" of numbers, "vocabulary" of texts.
        keep: Columns that stay as they are.
        columns: What each column holds: "number", "whole number" or "text".

    Raises:
        UserError: A column or kind is not known, or they do not go together.
    """
    wanted: dict[str, Any] = dict(features) or {
        name: "vocabulary" if holds == "text" else "scale" for name, holds in columns.items()
    }
    wanted |= dict.fromkeys(keep, "keep")
    steps = {name: _step(name, declaration, columns) for name, declaration in wanted.items()}

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        return {
            name: _dense(kind.apply(inputs[name], number, name), kind.missing) for name, (kind, number) in steps.items()
        }

    return preprocessing_fn


def _step(name: str, declaration: Any, columns: Mapping[str, str]) -> tuple[Kind, int]:
    def refuse(problem: str, remedy: str) -> UserError:
        return UserError(COMPONENT, "features", problem, remedy)

    if name not in columns:
        raise refuse(f"there is no column {name!r}", f"The columns are {', '.join(columns)}")
    pairs = list(declaration.items()) if isinstance(declaration, Mapping) else [(declaration, None)]
    kind = KINDS.get(pairs[0][0]) if len(pairs) == 1 and isinstance(pairs[0][0], str) else None
    if kind is None:
        raise refuse(f"{declaration!r} of {name!r} is no way to transform it", f"Choose one of {', '.join(KINDS)}")
    word, number = pairs[0]
    if number is None and kind.needs_number:
        raise refuse(f"{word} of {name!r} needs a number", f'Give it as {{"{name}": {{"{word}": 10}}}}')
    if number is not None and (kind.least is None or number != int(number) or number < kind.least):
        fit = "Give none" if kind.least is None else f"Give a whole number from {kind.least}"
        raise refuse(f"{number!r} does not go with {word} of {name!r}", fit)
    holds = columns[name]
    if holds not in kind.takes and not (holds == "whole number" and "number" in kind.takes):
        raise refuse(f"{word} is not for {name!r}, which holds {holds}s", f"It is for {_joined(kind.takes)}")
    return kind, int(number or 0)


def _joined(kinds: Sequence[str]) -> str:
    return " and ".join(f"{kind}s" for kind in kinds)


def _dense(column: Any, missing: float) -> Any:
    import tensorflow as tf

    if not isinstance(column, tf.sparse.SparseTensor):
        return column
    default = "" if column.dtype == tf.string else tf.cast(missing, column.dtype)
    dense = tf.sparse.to_dense(
        tf.sparse.SparseTensor(column.indices, column.values, (column.dense_shape[0], 1)), default
    )
    return tf.reshape(dense, (-1, 1))
