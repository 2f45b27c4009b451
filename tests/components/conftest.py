"""What tests of components share: small datasets, an empty registry."""

import datetime
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.components._shared.dataset import KIND
from penstock.components._shared.sealed import new_folder, seal


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[pa.Table | dict], Path]:
    """Return a function that writes a table, or a dict of columns, as a sealed dataset and returns its folder."""

    def make(table: pa.Table | dict) -> Path:
        table = pa.table(table)
        rows = repr(table.schema) + "".join(sorted(map(repr, table.to_pylist())))
        with new_folder(tmp_path_factory.mktemp("dataset")) as folder:
            pq.write_table(table, folder / "part-00000.parquet")
            facts = {
                "rows": table.num_rows,
                "schema": [{"name": field.name, "type": str(field.type)} for field in table.schema],
                "fingerprint": hashlib.sha256(rows.encode()).hexdigest(),
            }
            seal(folder, KIND, facts)
        return folder

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only who may mount has a small disk to try it on")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry that holds nothing yet; creating its tables takes a second, copying them does not."""
    from penstock.components._shared.mlflow_registry import open_registry  # MLflow takes a second to import

    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    open_registry(f"sqlite:///{database}", "test")
    return database


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path) -> str:
    (tmp_path / "registry").mkdir()
    shutil.copy(empty_database, tmp_path / "registry")
    return f"sqlite:///{tmp_path}/registry/mlflow.db"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ssl.SSLContext]:
    """Return a function that makes the TLS context of a server of some name, which clients of this test trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = tmp_path / f"{host}.pem"
        plain = serialization.NoEncryption()
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        pem.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(variable, str(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    return make
