"""What tests of the tools share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from tests.compile.machines import base  # noqa: F401  a fixture


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[Any], Path]:
    """Return a function that compiles a pipeline or component and returns the spec's path."""

    def compile_it(what: Any) -> Path:
        path = tmp_path / "spec.yaml"
        compiler.Compiler().compile(what, str(path))
        return path

    return compile_it
