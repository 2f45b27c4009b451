"""What tests of every kind share."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

# With `--hypothesis-profile thorough` tests of random cases take many more of them.
settings.register_profile("thorough", max_examples=1000)

# A test session started in the background or under nohup ignores these, and so would every process that it starts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let Feast keep its metrics in one folder: it makes one in each process, and leaves it where that is killed."""
    if "PROMETHEUS_MULTIPROCESS_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="penstock-metrics-")
        os.environ["PROMETHEUS_MULTIPROCESS_DIR"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take longest, so that no worker is left with one while the others have ended."""
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(allowed(item), longest.get(item.path, 0))
    items.sort(key=lambda item: longest[item.path], reverse=True)


def allowed(item: pytest.Item) -> float:
    """Return the seconds that a test has been given in place of those that all have."""
    mark = item.get_closest_marker("timeout")
    return mark.args[0] if mark else 0


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


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    """Address of a registry on this machine; what is named after it leaves the container engine at the end."""
    with serving(tmp_path) as address:
        yield address


@contextlib.contextmanager
def serving(folder: Path, **settings: object) -> Iterator[str]:
    """Serve a registry on this machine and yield its address; settings are those of its configuration."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed; on Debian: apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = folder / "registry.yaml"
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
    config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}, **settings}))
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address.split(":"), timeout=5):
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()
        names = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]
        for name in subprocess.run(names, capture_output=True, text=True).stdout.splitlines():
            if name.startswith(f"{address}/"):
                subprocess.run(["docker", "rmi", name], capture_output=True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An S3 bucket `data` of a server on loopback, and the client that fills it."""
    boto3 = pytest.importorskip("boto3")
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # of clients that know the server of another test
    client = boto3.client("s3")
    client.create_bucket(Bucket="data")
    yield client
    # The server of the next test in this process would have what is in this one.
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=10).close()
    server.stop()
