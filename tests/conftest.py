"""What tests of every kind share."""

import os
import signal
from pathlib import Path

import pytest

# A test session started in the background or under nohup ignores these, and so would every process that it starts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def shared_folder(*parts: str) -> Path:
    """Return a folder of data or pipelines that are not part of the project, or skip the test that needs them."""
    shared = Path(os.environ.get("PENSTOCK_SHARED", Path(__file__).parents[2] / "shared"))
    folder = shared.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; set PENSTOCK_SHARED to the folder that holds {'/'.join(parts)}")
    return folder


@pytest.fixture(scope="session")
def taxi_months() -> Path:
    """Folder of the real taxi trips, one CSV a month, 10,000 trips each."""
    return shared_folder("data", "taxi")


@pytest.fixture(scope="session")
def kfp_specs() -> Path:
    """Folder of compiled pipelines that others wrote: valid/ and invalid/."""
    return shared_folder("corpus", "kfp-specs")
