"""Every environment: its lock holds what its components need, and its image what a platform team asks for."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.containers.conftest import ROOT

ENVIRONMENTS = sorted(path.parent.name for path in ROOT.glob("containers/*/requirements.in"))
# Those of another Python have packages that pin other versions than all others have.
ALIKE = [name for name in ENVIRONMENTS if not (ROOT / "containers" / name / "base").exists()]
MOST_BYTES = {
    "beam": 4e9,
    "tabular": 850e6,
    "serving": 700e6,
    "tuning": 1100e6,
    "tensorflow": 2.2e9,
    "serving-tensorflow": 1.6e9,
}
LISTED = """
import json, os, sys
found = {"pip": False, "tests": [], "sources": [], "compilers": [], "stale": 0, "modules": 0}
for folder, folders, files in os.walk("/opt"):
    found["pip"] |= "pip" in folders
    tests = [name for name in folders if name in ("test", "tests") and "/_api" not in folder]  # tensorflow.test is API
    found["tests"] += [os.path.join(folder, name) for name in tests]
    found["sources"] += [os.path.join(folder, name) for name in files if name.endswith((".c", ".h", ".a", ".pyx"))]
for folder in os.environ["PATH"].split(":"):
    found["compilers"] += [name for name in os.listdir(folder) if name in ("cc", "gcc", "g++", "clang", "ld")]
json.dump(found, sys.stdout)
"""


def locked(text: str) -> dict[str, str]:
    """Return version by name."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("containers/*/*.lock")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_lock_holds_hashes(path):
    text = path.read_text()
    pins = locked(text)
    assert pins
    assert "://" not in text
    hashed = re.findall(r"^(\S+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert hashed == list(pins)


@pytest.mark.parametrize("name", ALIKE)
def test_a_lock_holds_the_versions_that_tests_ran_with(name):
    tested = (ROOT / "requirements.lock").read_text()
    for package, version in locked((ROOT / "containers" / name / "requirements.lock").read_text()).items():
        assert f"\n{package}=={version}" in f"\n{tested}", package


def test_what_tfx_pins_is_in_no_other_lock():
    """Its pyarrow and scikit-learn are years older than those that all else runs with."""
    beam = locked((ROOT / "containers" / "beam" / "requirements.lock").read_text())
    assert beam["tfx"].startswith("1.21.")
    for path in [ROOT / "requirements.lock", *(ROOT / "containers" / name / "requirements.lock" for name in ALIKE)]:
        other = locked(path.read_text())
        assert not {"apache-beam", "tfx", "tfx-bsl"} & set(other)
        assert beam["scikit-learn"] == "1.5.2" != other.get("scikit-learn")
        assert beam["pyarrow"].startswith("18.")
        assert beam["pyarrow"] != other.get("pyarrow")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_holds_what_its_extras_ask_for(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r"^\.\[(.*)\]$", (ROOT / "containers" / name / "requirements.in").read_text(), re.MULTILINE)
    extra = [requirement for part in asked[1].split(",") for requirement in extras[part]]
    wanted = {re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in extra}
    wanted -= {"tensorflow"}  # of other platforms
    pins = set(locked((ROOT / "containers" / name / "requirements.lock").read_text()))
    assert wanted <= pins
    assert {"kfp", "typing-extensions"} <= pins
    # What nobody asked for by name is a client of ours that came along.
    imported = {"docker", "kubernetes"} if "tfx" in pins else set()  # wherever TFX is
    assert not {"kfp-server-api", "kubernetes", "docker", "pip", "polars"} - wanted - imported & pins
    assert ("rich" in pins) == ("keras" in pins)  # which imports it


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_smoke_test_names_something_that_runs(name):
    wanted = yaml.safe_load((ROOT / "containers" / name / "smoke.yaml").read_text())
    assert wanted["run"]


@pytest.mark.docker
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_image_has_a_numeric_user_a_sealed_root_and_says_what_it_is(built, engine, name):
    image = built(name)
    config = engine.inspect_image(image.id)["Config"]
    user = config["User"].partition(":")[0]
    assert int(user) >= 1000
    labels = config["Labels"]
    assert labels["penstock.read-only-root"] == "true"
    assert labels["org.opencontainers.image.title"] == f"penstock/{name}"
    assert labels["org.opencontainers.image.version"] == image.environment.version
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"([0-9a-f]{40})?", labels["org.opencontainers.image.revision"])
    assert "org.opencontainers.image.source" in labels
    assert image.size <= MOST_BYTES.get(name, 2e9)


@pytest.mark.docker
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_image_holds_no_tests_no_compiler_and_no_installer(built, engine, name):
    command = ["docker", "run", "--rm", "--network", "none", built(name).name, "python3", "-c", LISTED]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert found["pip"] is False
    assert found["tests"] == found["sources"] == found["compilers"] == []
