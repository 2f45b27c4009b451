"""Holds a converted job, run step by step without Azure, against the local engine's run of the same spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.compile import from_kfp
from penstock.compile.targets import local
from penstock.compile.targets.azureml import convert, rehearsal
from penstock.compile.targets.azureml.options import Options
from penstock.testing.conversions import differences as compared

__all__ = ["compared", "differences"]


def differences(
    spec: Path,
    folder: Path,
    values: Mapping[str, Any] | None = None,
    options: Options | None = None,
    *,
    jobs: int = 2,
    run_id: str = "parity",
    runner: str = "subprocess",
    network: str = "",
    inputs: Mapping[str, str] | None = None,
    apart_from: Sequence[str] = (),
) -> list[str]:
    """Return where the two do not agree: states, exit codes, parameters, artifacts with their bytes, outputs.

    Args:
        inputs: Texts that the job is given in place of values.
        apart_from: Patterns of outputs that may differ.
    """
    conversion = convert.convert(from_kfp.read(spec), values, options)
    assert not conversion.refused, [str(each) for each in conversion.findings]
    convert.write(conversion, folder / "job")
    how: dict[str, Any] = {"jobs": jobs, "runner": runner, "run_id": run_id, "network": network}
    theirs = local.run(spec, values or {}, root=folder / "local", reuse=False, **how)
    ours = rehearsal.run(folder / "job" / "job.yml", root=folder, inputs=inputs, **how)
    return compared(ours, theirs, apart_from)
