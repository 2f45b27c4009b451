"""Fails where an environment is not its lock, or a module of a component that runs in it cannot be imported."""

import importlib
import os
import pkgutil
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

os.environ["_KFP_RUNTIME"] = "true"

# What runs in the environment on the right runs in that on the left, too.
LIKE = {"beam": "tabular", "tensorflow": "tabular", "serving-tensorflow": "serving"}


def main(environment: str, locks: list[Path]) -> int:
    problems = []
    locked = "\n".join(lock.read_text() for lock in locks)
    for name, wanted in re.findall(r"^([a-zA-Z0-9._-]+)==([^\s;]+)", locked, re.MULTILINE):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "not there"
        if installed != wanted:
            problems.append(f"{name} is {installed}, not {wanted}")
    importlib.import_module("kfp.dsl.executor_main")
    found = {stage for each in (environment, LIKE.get(environment, environment)) for stage in stages(each)}
    modules = [name for stage in sorted(found) for name in walk(stage)]
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            problems.append(f"{name}: {error}")
    print("\n".join(problems) or f"{environment} is its lock, and {len(modules)} modules can be imported")
    return 1 if problems else 0


def stages(environment: str) -> list[str]:
    """Return the packages of the components that are declared to run in an environment, and programs of its name."""
    (root,) = find_spec("penstock.components").submodule_search_locations
    declared = re.compile(rf"""image\(["']{re.escape(environment)}["']\)""")
    return [
        *(
            f"penstock.components.{file.parent.name}"
            for file in sorted(Path(root).glob("*/component.py"))
            if declared.search(file.read_text())
        ),
        *(
            f"penstock.components.{file.parents[1].name}.{environment}"
            for file in sorted(Path(root).glob(f"*/{environment}/__main__.py"))
        ),
    ]


def walk(package: str) -> list[str]:
    (folder,) = find_spec(package).submodule_search_locations
    found = [module.name for module in pkgutil.walk_packages([folder], f"{package}.")]
    return [package, *(name for name in found if not name.endswith(".component"))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sorted(Path(__file__).parent.glob("*.lock"))))
