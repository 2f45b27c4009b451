#!/usr/bin/env python3
"""Writes as CycloneDX JSON what an install of our wheel brings, and what is in our images.

.ci/sbom.py wheel dist/penstock-0.1.0-py3-none-any.whl
.ci/sbom.py images [NAME…]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
MINUTES = 60
# Where packages of Debian, of images without a package manager, and the name of the distribution stand.
DPKG = PurePosixPath("/var/lib/dpkg/status")
DISTROLESS = PurePosixPath("/var/lib/dpkg/status.d")
RELEASE = PurePosixPath("/usr/lib/os-release")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="FOLDER", help="where to write (dist)")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("wheel").add_argument("wheel", type=Path)
    kinds.add_parser("images").add_argument("names", nargs="*", metavar="NAME")
    chosen = parser.parse_args()
    if chosen.kind == "wheel":
        write(of_wheel(chosen.wheel), chosen.output / f"{chosen.wheel.stem}.cdx.json")
        return
    from penstock.compile import images
    from penstock.compile.errors import PenstockError

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        with images.Engine(tell) as engine:
            for environment in images.environments(ROOT, chosen.names):
                image = engine.existing(environment)
                write(
                    of_image(environment.repository, image.id), chosen.output / f"penstock-{environment.name}.cdx.json"
                )
    except PenstockError as error:
        sys.exit(f"sbom: {error}")


def write(bom: dict[str, Any], path: Path) -> None:
    text = valid(bom)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(path)


def of_wheel(wheel: Path) -> dict[str, Any]:
    """Install a wheel with the versions of requirements.lock into an environment of its own, and list that."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        uv: list[str | Path] = [BIN / "uv", "--quiet"]
        run([*uv, "venv", "--python", sys.executable, python.parents[1]])
        run([*uv, "pip", "install", "--python", python, "--constraint", ROOT / "requirements.lock", wheel.resolve()])
        bom = of_python(python, "--mc-type", "library", "--pyproject", ROOT / "pyproject.toml")
    component = bom["metadata"]["component"]
    component["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    component["purl"] = f"pkg:pypi/{component['name']}@{component['version']}"
    return bom


def of_image(name: str, reference: str) -> dict[str, Any]:
    """List the Python distributions of every folder of an image, its Debian packages, and a Python beside these.

    Args:
        name: What the image is called in the list.
        reference: Its id, or a name that the engine of this machine has for it.
    """
    import docker
    from docker.errors import DockerException

    with tempfile.TemporaryDirectory() as folder:
        try:
            client = docker.from_env(timeout=10 * MINUTES)
            image = client.images.get(reference)
            container = client.containers.create(image, command=["true"])
            try:
                unpack(container.export(), Path(folder))
            finally:
                container.remove()
        except DockerException as error:
            sys.exit(f"sbom: cannot look into the image {reference}: {error}")
        sites = sorted({str(path.parent) for path in Path(folder).rglob("*.*-info")})
        # cyclonedx-py asks an interpreter for its path; this one answers for the image.
        answers = Path(folder, "python")
        answers.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps(sites))}\n")
        answers.chmod(0o755)
        bom = of_python(answers)
        debian = [*debian_packages(Path(folder))]
    if not debian:
        print(f"sbom: {reference} has no Debian package database; its system packages are not listed", file=sys.stderr)
    settings = dict(line.split("=", 1) for line in image.attrs["Config"]["Env"] or ())
    if version := settings.get("PYTHON_VERSION"):
        debian.append(component("python", version, f"pkg:generic/python@{version}"))
    bom["components"] += debian
    bom["metadata"]["component"] = {
        "type": "container",
        "bom-ref": "image",
        "name": name,
        "version": image.id,
        # Once pushed: the names by which specs know it.
        "externalReferences": [
            {"type": "distribution", "url": f"oci://{name}"} for name in sorted(image.attrs["RepoDigests"])
        ],
    }
    bom["dependencies"] = sorted(
        [
            *bom["dependencies"],
            *({"ref": each["bom-ref"]} for each in debian),
            {"ref": "image", "dependsOn": sorted(each["bom-ref"] for each in bom["components"])},
        ],
        key=lambda each: str(each["ref"]),
    )
    return bom


def of_python(python: Path, *options: str | Path) -> dict[str, Any]:
    command = [BIN / "cyclonedx-py", "environment", "--output-reproducible", *options, python]
    bom: dict[str, Any] = json.loads(run(command))
    return bom


def unpack(chunks: Iterator[bytes], folder: Path) -> None:
    """Write from a file system as tar what says which packages there are: metadata, not links, not what is vendored."""
    stream = io.BufferedReader(Chunks(chunks), 1 << 20)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = PurePosixPath("/", member.name)
            distribution = path.parent.suffix in (".dist-info", ".egg-info") and "_vendor" not in path.parts
            package = path == DPKG or path.parent == DISTROLESS
            if member.isfile() and (distribution or package or path == RELEASE):
                target = folder / path.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())


class Chunks(io.RawIOBase):
    """A file to read, of pieces that come one by one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.rest:
            self.rest = next(self.chunks, b"")
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def debian_packages(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a component a package that dpkg has installed below a folder."""
    root = PurePosixPath("/")
    below = [folder / DPKG.relative_to(root), *sorted((folder / DISTROLESS.relative_to(root)).glob("*"))]
    release = folder / RELEASE.relative_to(root)
    words = shlex.split(release.read_text()) if release.is_file() else []
    system = dict(word.split("=", 1) for word in words if "=" in word)
    kind = system.get("ID", "debian")
    distribution = f"{kind}-{system.get('VERSION_ID', '')}".rstrip("-")
    for path in below:
        for stanza in path.read_text().split("\n\n") if path.is_file() else ():
            lines = (line.partition(": ") for line in stanza.splitlines() if not line.startswith(" "))
            fields = {key: value for key, _, value in lines}
            # A file of status.d holds an installed package and no Status.
            if "Package" in fields and fields.get("Status", "install ok installed").endswith(" installed"):
                name, version, machine = fields["Package"], fields["Version"], fields["Architecture"]
                purl = f"pkg:deb/{kind}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}"
                yield component(name, version, f"{purl}?arch={machine}&distro={distribution}")


def component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def valid(bom: dict[str, Any]) -> str:
    """Return the BOM as text, held to the schema that it names."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    error = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(text)
    if error is not None:
        sys.exit(f"sbom: what was put together is no CycloneDX {bom['specVersion']}: {error}")
    return text


def run(command: Sequence[str | Path]) -> str:
    """Run a command, and end with what it said where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=10 * MINUTES)
    except subprocess.TimeoutExpired:
        sys.exit(f"sbom: {command[0]} took more than 10 minutes")
    if done.returncode:
        sys.exit(f"sbom: {shlex.join(map(str, command))} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
