"""What tests of the conversion to Azure ML share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from penstock.compile import from_kfp
from penstock.compile.targets.azureml import convert
from penstock.compile.targets.azureml.convert import Conversion
from penstock.compile.targets.azureml.options import parse


@pytest.fixture
def converted(compiled) -> Callable[..., Conversion]:
    """Return a function that compiles a pipeline and converts it."""

    def convert_it(what: Any, values: Mapping[str, Any] | None = None, **options: Any) -> Conversion:
        return convert.convert(from_kfp.read(compiled(what)), values, parse(options))

    return convert_it
