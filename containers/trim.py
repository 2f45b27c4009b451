"""Removes from an environment what wheels ship and no container uses, compiles the rest and prints sizes."""

import shutil
import sys
import sysconfig
from compileall import compile_dir
from pathlib import Path
from py_compile import PycInvalidationMode

SITE = Path(sysconfig.get_path("purelib"))
TESTS = ("test", "tests")
TO_COMPILE_AGAINST = {".a", ".c", ".cc", ".cpp", ".h", ".hpp", ".pxd", ".pyi", ".pyx"}
# Patterns by folder: what serves other uses of it.
UNUSED = {
    "PIL": ["_avif*"],
    "botocore/data": ["*"],
    "databricks": ["sdk"],  # MLflow imports it for registries on Databricks
    "fontTools": ["**/*.so"],  # each is beside the Python that it was compiled from
    "kfp": ["*"],
    "matplotlib/mpl-data": ["sample_data", "fonts/afm", "fonts/pdfcorefonts"],
    "numpy": ["_core/_simd.*", "_core/*_tests.*"],
    "pillow.libs": ["libavif*"],
    "pyarrow": ["*flight*", "*_s3*", "*_cpp_tests*", "include", "src"],  # s3fs reads S3
    "scipy": ["**/_test_*.so"],
    "sqlalchemy": ["testing"],
}
# What components need of it: KFP's executor; S3, and ways to log in there.
KEPT = {
    "kfp": {"__init__.py", "dsl", "version.py"},
    "botocore/data": {
        "_retry.json", "endpoints.json", "partitions.json", "s3", "sdk-default-configuration.json", "signin", "sso",
        "sso-oidc", "sts",
    },
}  # fmt: skip


def main() -> int:
    before = size(SITE)
    for folder, patterns in UNUSED.items():
        for path in [found for pattern in patterns for found in (SITE / folder).glob(pattern)]:
            if path.name not in KEPT.get(folder, ()):
                remove(path)
    for path in [*SITE.rglob("*")]:
        if (path.is_dir() and path.name in TESTS) or (path.is_file() and path.suffix in TO_COMPILE_AGAINST):
            remove(path)
    link_copies()
    link_openmp()
    # Of files that never change, byte-code need not be held against its source.
    compile_dir(SITE, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    print(f"installed {before / 1e6:.0f} MB, kept {size(SITE) / 1e6:.0f} MB with byte-code, of which:")
    for path in sorted(SITE.iterdir(), key=size, reverse=True)[:20]:
        print(f"{size(path) / 1e6:8.1f} MB  {path.name}")
    return 0


def link_copies() -> None:
    """Make one of the same library under several names, which wheels cannot link."""
    for path in [*SITE.rglob("*.so"), *SITE.rglob("*.so.*")]:
        for longer in path.parent.glob(f"{path.name}.*"):
            if not path.is_symlink() and not longer.is_symlink() and path.read_bytes() == longer.read_bytes():
                path.unlink()
                path.symlink_to(longer.name)


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
