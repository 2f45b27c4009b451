"""Maps the top-level folders to penstock.*; everything else is in pyproject.toml."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.editable_wheel import editable_wheel

FOLDERS = {
    "penstock.components": "components",
    "penstock.pipelines": "pipelines",
    "penstock.compile": "compile",
    "penstock.testing": "compile/testing",
}
HERE = Path(__file__).parent


def packages() -> list[str]:
    found = []
    for package, folder in FOLDERS.items():
        # A folder that is mapped by itself is no part of the one around it.
        inner = [os.path.relpath(each, folder) for each in FOLDERS.values() if each.startswith(f"{folder}/")]
        exclude = [pattern for each in inner for pattern in (each, f"{each}.*")]
        found += [package, *(f"{package}.{name}" for name in find_packages(HERE / folder, exclude=exclude))]
    return found


class LinkedEditable(editable_wheel):  # type: ignore[misc]
    """Editable install through a folder of symbolic links, which type checkers and editors can follow.

    setuptools backs a mapped layout by an import hook that they cannot read; an ordinary .pth file
    to .links/ they can. Where links are refused, the hook remains.
    """

    def run(self) -> None:
        links = HERE / ".links" / "penstock"
        try:
            shutil.rmtree(links, ignore_errors=True)
            links.mkdir(parents=True)
            for package, folder in FOLDERS.items():
                (links / package.rpartition(".")[2]).symlink_to(
                    os.path.relpath(HERE / folder, links), target_is_directory=True
                )
        except OSError as error:
            self.announce(f"no symbolic links here ({error}); editors may not see penstock", level=3)
        else:
            self.package_dir = self.distribution.package_dir = {"": ".links"}
            # With the namespace among the packages, setuptools sees that one folder on the path serves them all.
            self.distribution.packages = ["penstock", *packages()]
        super().run()


class PlainWheel(bdist_wheel):  # type: ignore[misc]
    """Wheel whose files carry the same permissions whatever the umask of the checkout and of the build was.

    With SOURCE_DATE_EPOCH set, as `make wheel` does, the same files give the same bytes.
    """

    def write_wheelfile(self, wheelfile_base: str, *rest: str) -> None:
        super().write_wheelfile(wheelfile_base, *rest)
        # The last that is written before the archive is made.
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


setup(
    packages=packages(),
    package_dir=FOLDERS,
    cmdclass={"bdist_wheel": PlainWheel, "editable_wheel": LinkedEditable},
)
