"""What a bill of materials lists is what the interpreters and dpkg say is installed."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.contract.ci import ROOT

SCRIPT = ROOT / ".ci" / "sbom.py"
# Of each base image the environment with the shortest lock: what is in the others is the same but for the lock.
LOCKS = sorted(ROOT.glob("containers/*/requirements.lock"), key=lambda path: path.stat().st_size, reverse=True)
BASES = {base.read_text() if (base := path.with_name("base")).exists() else "": path.parent.name for path in LOCKS}
LIST = "import importlib.metadata as m; print(*{f'{d.metadata[\"Name\"]}=={d.version}' for d in m.distributions()})"
# Of the interpreter that comes first, and of the one that its environment was made with.
LIST_BOTH = (
    f"import subprocess, sys; [subprocess.run([p, '-c', {LIST!r}]) for p in (sys.executable, sys._base_executable)]"
)
# Built on our base as images are, with a package that is in no other: what of it is left out would show.
RECIPE = """
FROM python:3.11-slim
RUN python3 -m venv --without-pip /opt/venv && mkdir /opt/venv/lib/python3.11/site-packages/Odd_one-1.5.dist-info \
    && printf 'Metadata-Version: 2.1\\nName: Odd.one\\nVersion: 1.5\\n' \
       > /opt/venv/lib/python3.11/site-packages/Odd_one-1.5.dist-info/METADATA
ENV PATH=/opt/venv/bin:/usr/bin:/bin
"""


def sbom():
    spec = importlib.util.spec_from_file_location("sbom", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(bom, *, kind):
    components = bom["components"]
    if kind == "python":
        return {f"{each['name']}=={each['version']}" for each in components if not each["bom-ref"].startswith("pkg:")}
    return {f"{each['name']}={each['version']}" for each in components if each["bom-ref"].startswith("pkg:deb/")}


def inside(image, *command):
    run = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout


def is_equal_to_what_is_in(image, bom):
    assert listed(bom, kind="python") == set(inside(image, "python3", "-c", LIST_BOTH).split())
    packages = inside(image, "dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}=${Version}\\n")
    installed = {line.partition(" ")[2] for line in packages.splitlines() if line.startswith("installed ")}
    assert listed(bom, kind="debian") == installed


@pytest.mark.slow
def test_the_list_of_the_wheel_is_what_an_install_of_it_brings(tmp_path):
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT]
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "source"], check=True)
    subprocess.run([*build[:-1], tmp_path / "source"], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    env = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    made = subprocess.run(
        [sys.executable, SCRIPT, "--output", tmp_path, "wheel", wheel], env=env, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    bom = json.loads(Path(made.stdout.strip()).read_text())

    python = tmp_path / "venv" / "bin" / "python"
    uv = [Path(sys.executable).with_name("uv"), "--quiet"]
    lock = ["--constraint", ROOT / "requirements.lock"]
    subprocess.run([*uv, "venv", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([*uv, "pip", "install", "--python", python, *lock, wheel], check=True, env=env)
    installed = set(subprocess.run([python, "-c", LIST], capture_output=True, text=True, check=True).stdout.split())
    component = bom["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    assert listed(bom, kind="python") | {f"{component['name']}=={component['version']}"} == installed
    locked = set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for name, version in (line.split("==") for line in listed(bom, kind="python")):
        assert f"{canonicalize_name(name)}=={version}" in locked


@pytest.mark.docker
def test_the_list_of_an_image_has_every_interpreters_distributions_and_what_dpkg_installed():
    build = ["docker", "build", "-q", "-"]
    image = subprocess.run(build, input=RECIPE, capture_output=True, text=True, check=True).stdout.strip()
    try:
        bom = sbom().of_image("odd", image)
        assert "Odd.one==1.5" in listed(bom, kind="python")
        assert any(name.startswith("pip==") for name in listed(bom, kind="python"))
        is_equal_to_what_is_in(image, bom)
        assert bom["metadata"]["component"]["version"] == image
        assert sbom().valid(bom) == sbom().valid(sbom().of_image("odd", image)), "the same image gives the same bytes"
    finally:
        subprocess.run(["docker", "rmi", image], capture_output=True)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(BASES.values()))
def test_the_list_of_our_image_is_what_is_installed_in_it(name, tmp_path):
    penstock = [Path(sys.executable).with_name("penstock"), "images", "build", name, "--json"]
    built = subprocess.run(penstock, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [image] = json.loads(built.stdout)
    made = subprocess.run(
        [sys.executable, SCRIPT, "--output", tmp_path, "images", name], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    bom = json.loads((tmp_path / f"penstock-{name}.cdx.json").read_text())
    assert bom["metadata"]["component"]["version"] == image["id"]
    assert "penstock" in {each["name"] for each in bom["components"]}
    is_equal_to_what_is_in(image["id"], bom)


def test_without_an_engine_one_line_says_what_to_start(tmp_path):
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no-engine"}
    done = subprocess.run([sys.executable, SCRIPT, "images"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("sbom: ")
    assert done.stderr.endswith("start Docker\n")
    assert len(done.stderr.splitlines()) == 1
