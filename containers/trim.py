"""Removes from an environment what wheels ship and no container uses, compiles the rest and prints sizes."""

import hashlib
import os
import re
import shutil
import struct
import sys
import sysconfig
from collections.abc import Iterator
from compileall import compile_dir
from pathlib import Path
from py_compile import PycInvalidationMode

SITE = Path(sysconfig.get_path("purelib"))
TESTS = ("test", "tests")
API = "_api"  # of TensorFlow: tensorflow.test is a part of it
TO_COMPILE_AGAINST = {".a", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx", ".tp"}
# Patterns by folder: what serves other uses of it.
UNUSED = {
    "PIL": ["_avif*"],
    "alembic": ["testing"],
    "apache_beam": ["**/*_test.py", "examples"],
    "botocore/data": ["*"],
    "clang": ["*"],  # TensorFlow asks for it, and imports it nowhere
    "databricks": ["sdk"],  # MLflow imports it for registries on Databricks
    "feast": ["templates", "ui"],  # of its command and its servers
    "fontTools": ["**/*.so"],  # each is beside the Python that it was compiled from
    "kfp": ["*"],
    "matplotlib": ["backends/web_backend", "sphinxext", "testing"],
    "matplotlib/mpl-data": ["sample_data", "fonts/afm", "fonts/pdfcorefonts"],
    "mlflow": ["assistant", "demo", "server"],  # a container is a client of it
    "numpy": ["_core/_simd.*", "_core/*_tests.*", "distutils"],
    "pillow.libs": ["libavif*"],
    "pyarrow": ["*flight*", "*_s3*", "*_cpp_tests*", "include", "src"],  # s3fs reads S3
    "scipy": ["**/_test_*.so"],
    "sqlalchemy": ["testing", "**/*.so"],  # as of fontTools
    "tensorflow": ["include"],  # to compile against
    "tensorflow_data_validation": ["**/*_test.py"],
    "tensorflow_model_analysis": ["**/*_test.py"],
    "tensorflow_transform": ["**/*_test.py"],
    "tfx": ["**/*_test.py", "benchmarks", "examples"],
    "xgboost": ["testing"],
}
# What one package needs of another's.
ASKED_FOR = {"feast": {"pyarrow": ["*_s3*"]}}  # it imports Arrow's S3, whatever the store
# What components need of it: KFP's executor; S3, and ways to log in there. What TFX does of KFP: its messages.
KEPT = {
    "kfp": {"__init__.py", "dsl", "pipeline_spec", "version.py"},
    "botocore/data": {
        "_retry.json", "endpoints.json", "partitions.json", "s3", "sdk-default-configuration.json", "signin", "sso",
        "sso-oidc", "sts",
    },
}  # fmt: skip


def main() -> int:
    before = size(SITE)
    for folder, patterns in UNUSED.items():
        asked_for = [
            name for package, needs in ASKED_FOR.items() if (SITE / package).is_dir() for name in needs.get(folder, ())
        ]
        for path in [
            found for pattern in patterns if pattern not in asked_for for found in (SITE / folder).glob(pattern)
        ]:
            if path.name not in KEPT.get(folder, ()):
                remove(path)
    for path in [*SITE.rglob("*")]:
        if (path.is_dir() and path.name in TESTS and API not in path.parts) or (
            path.is_file() and path.suffix in TO_COMPILE_AGAINST
        ):
            remove(path)
    for path in libraries():
        cut_symbols(path)
    link_copies()
    link_openmp()
    compile_all(SITE)
    # Python's official images have none of the standard library, which every task would compile anew.
    compile_all(
        Path(sysconfig.get_path("stdlib")), besides=re.compile("/(dist-packages|ensurepip|idlelib|site-packages|test)/")
    )
    print(f"installed {before / 1e6:.0f} MB, kept {size(SITE) / 1e6:.0f} MB with byte-code, of which:")
    for path in sorted(SITE.iterdir(), key=size, reverse=True)[:20]:
        print(f"{size(path) / 1e6:8.1f} MB  {path.name}")
    return 0


def compile_all(folder: Path, besides: re.Pattern[str] | None = None) -> None:
    """Write byte-code where there is none; of files that never change, it need not be held against its source."""
    compile_dir(folder, rx=besides, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def libraries() -> Iterator[Path]:
    """Yield shared libraries and extension modules."""
    for path in sorted({*SITE.rglob("*.so"), *SITE.rglob("*.so.*")}):
        if path.is_file() and not path.is_symlink():
            yield path


def cut_symbols(path: Path) -> None:
    """Cut from a library what follows all that is ever loaded: symbols for debuggers, and the table of sections.

    `strip` would do so; of it an image would need a compiler's tools. Names of exported functions stay.
    """
    with path.open("r+b") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            return
        (table,) = struct.unpack_from("<Q", head, 32)
        entry, count = struct.unpack_from("<HH", head, 54)
        end = table + entry * count
        file.seek(table)
        for segment in struct.iter_unpack(f"<8xQ16xQ{entry - 40}x", file.read(entry * count)):
            end = max(end, sum(segment))
        file.seek(40)
        file.write(bytes(8))  # where sections are listed
        file.seek(60)
        file.write(bytes(4))  # how many there are, and which has their names
        file.truncate(end)


def link_copies() -> None:
    """Make one of libraries that are the same, which wheels cannot link."""
    kept: dict[bytes, Path] = {}
    for path in libraries():
        first = kept.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
        if first != path:
            path.unlink()
            path.symlink_to(os.path.relpath(first, path.parent))


def link_openmp() -> None:
    """Give LightGBM, which takes the system's OpenMP runtime, the one that came with another wheel."""
    found = sorted(SITE.glob("*.libs/libgomp-*.so.*"))
    if found:
        (Path(sys.prefix) / "lib" / "libgomp.so.1").symlink_to(found[0])


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir() or file.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
