"""What steps find in an image to run their commands with."""

from __future__ import annotations

import fnmatch
from enum import StrEnum

from penstock.compile import commands, graph
from penstock.compile.targets.azureml import options as options_of
from penstock.compile.targets.azureml.options import Options

_WITH_SHELL = (
    "alpine", "alpine-curl", "bash", "busybox", "curl", "debian", "git", "jq", "kubectl", "nginx", "redis", "ubuntu",
)  # fmt: skip
_WITHOUT = ("distroless", "hello-world", "pause", "scratch")


class Launcher(StrEnum):
    """What runs a task's command in its image."""

    PYTHON = "python"
    SH = "sh"  # between two steps with Python
    PERHAPS = "perhaps"  # Python, if the image has it
    NONE = "none"


def launcher(body: graph.Container, image: str, options: Options) -> Launcher:
    """Return what runs a command.

    Args:
        body: The container.
        image: Its image, with nothing left to replace.
        options: What the conversion was told; it counts for more than what is known of images here.
    """
    if told := options_of.matching(options.launchers, image):
        return Launcher(told)
    if any(fnmatch.fnmatchcase(image, pattern) for pattern in options.has_python):
        return Launcher.PYTHON
    if commands.is_lightweight(body) or commands.is_containerized_python(body):
        return Launcher.PYTHON
    if any(each in [*body.command, *body.args][:1] for each in ("python", "python3")):
        return Launcher.PYTHON
    path = image.partition("@")[0]
    name = path.rpartition("/")[2].partition(":")[0]
    if name.startswith("python"):
        return Launcher.PYTHON
    if name in _WITHOUT or any(part in _WITHOUT for part in path.split("/")):
        return Launcher.NONE
    return Launcher.SH if name in _WITH_SHELL else Launcher.PERHAPS
