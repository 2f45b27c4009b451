"""Builds, proves and pushes the images of a repository, and says what came of each."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compile import images, serving_smoke
from penstock.compile._cli.output import print_json
from penstock.compile._cli.running import Stopped, signals_raised
from penstock.compile._cli.sources import find_source


@dataclass(frozen=True)
class Options:
    """What the commands have in common.

    Attributes:
        names: Environments; empty: all.
        context: Folder in the repository.
        registry: Where images are fetched from and pushed to; empty: nowhere.
        base: Base image; empty: the Dockerfile's.
    """

    names: Sequence[str]
    context: Path
    registry: str
    base: str
    as_json: bool


def build(options: Options, verbose: bool, then_smoke: bool) -> None:
    """Build what has changed, and smoke it where that is wanted."""
    with _signals_end(), images.Engine(_tell, options.base, verbose) as engine:
        made = []
        for environment in _environments(options):
            image = engine.build(environment, options.registry)
            how = f"built in {image.seconds:g} s" if image.seconds is not None else "is up to date"
            made.append(_shown(image, how, options, smoke=_smoked(image) if then_smoke else None))
    _print(made, options)


def smoke(options: Options) -> None:
    """Run each image's smoke test."""
    with _signals_end(), images.Engine(_tell, options.base) as engine:
        made = []
        for environment in _environments(options):
            image = engine.existing(environment, options.registry)
            made.append(_shown(image, "", options, smoke=_smoked(image)))
    _print(made, options)


def push(options: Options) -> None:
    """Push images and write containers/digests.json."""
    context = images.repository(options.context)
    with _signals_end(), images.Engine(_tell, options.base) as engine:
        made, pushed = [], {}
        found = [engine.existing(environment, options.registry) for environment in _environments(options)]
        for image in found:
            _tell(f"{image.environment.name}: pushing to {options.registry}")
            digest = engine.push(image, options.registry)
            pushed[image.environment] = (image.name.rpartition(":")[2], digest)
            place = f"{options.registry.rstrip('/')}/{image.environment.name}@{digest}"
            made.append(_shown(image, f"pushed as {place}", options, digest=digest))
        path = images.write_digests(context, options.registry, pushed)
    _print(made, options)
    _tell(f"wrote {path}")


def _environments(options: Options) -> list[images.Environment]:
    return images.environments(images.repository(options.context), options.names)


def _smoked(image: images.Image) -> float:
    what, parameters = images.smoke_test(image.environment)
    serve = serving_smoke.serve_of(image.environment)
    how = "and serving what it makes without a network" if serve else "without a network"
    _tell(f"{image.environment.name}: running {what} {how}")
    with tempfile.TemporaryDirectory(prefix="penstock-smoke-") as scratch:
        if serve:
            return serving_smoke.smoke(image, find_source(what).spec(), parameters, serve, Path(scratch))
        return images.smoke(image, find_source(what).spec(), parameters, Path(scratch))


def _shown(image: images.Image, how: str, options: Options, smoke: float | None = None, **more: str) -> dict[str, Any]:
    parts = [how, f"smoke test passed in {smoke:g} s" if smoke is not None else "", f"{image.size / 1e6:.0f} MB"]
    if not options.as_json:
        print(f"{image.name}  {', '.join(filter(None, parts))}", flush=True)
    return {
        "environment": image.environment.name,
        "image": image.name,
        "id": image.id,
        "bytes": image.size,
        "build_seconds": image.seconds,
        "smoke_seconds": smoke,
        **more,
    }


def _print(made: list[dict[str, Any]], options: Options) -> None:
    if options.as_json:
        print_json(made)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals_end() -> Iterator[None]:
    """End what is at work on a signal, then the command."""
    try:
        with signals_raised():
            yield
    except Stopped as stop:
        print(f"stopped by {signal.Signals(stop.number).name}", file=sys.stderr)
        raise SystemExit(128 + stop.number) from None
