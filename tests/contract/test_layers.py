"""Who may import whom: the table of the layers, held against every import in the code."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STDLIB = sys.stdlib_module_names
DATA = {
    "aiohttp", "alembic", "apache_beam", "azure", "duckdb", "dulwich", "feast", "fsspec", "google", "grpc", "jinja2",
    "keras", "kubernetes", "lightgbm", "markupsafe", "marshmallow", "matplotlib", "mlflow", "numpy", "optuna", "pandas",
    "polars", "prometheus_client", "psycopg", "pyarrow", "requests", "scipy", "shap", "sklearn", "skops", "sqlalchemy",
    "tensorflow", "tensorflow_data_validation", "tensorflow_metadata", "tensorflow_model_analysis",
    "tensorflow_transform", "tfx_bsl", "urllib3", "xgboost", "yaml",
}  # fmt: skip


# The modules of penstock.testing that need a package beyond the standard library.
CLIENTS = {
    "certificate.py": ("cryptography",),
    "connection.py": ("azure.ai", "azure.core", "fsspec", "gcsfs", "google.auth", "google.cloud"),
    "pipelines.py": ("yaml",),
    "fixtures.py": ("pytest",),
    "stand_in.py": ("azure.ai", "kfp"),
    "storage.py": ("google_crc32c",),
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Return the dotted names that a file imports, each with whether it does so at the top of the module."""
    tree = ast.parse(path.read_text())
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if node is not function
    }
    found = []
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return found


def files(pattern: str) -> list[Path]:
    found = sorted(ROOT.glob(pattern))
    assert found, f"no file matches {pattern}"
    return found


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def breaches(path: Path, allowed) -> list[str]:
    return [name for name, top in imports(path) if name.split(".")[0] not in STDLIB and not allowed(name, top)]


@pytest.mark.parametrize("path", files("components/*/component.py"), ids=lambda path: path.parent.name)
def test_a_declaration_imports_kfp_at_the_top_and_its_own_logic_in_the_body(path):
    own = f"penstock.components.{path.parent.name}"

    def allowed(name: str, top: bool) -> bool:
        if not top:
            return under(name, own)
        return under(name, "kfp", "penstock.components.images", "penstock.components.caching")

    assert breaches(path, allowed) == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in files("components/**/*.py")
        if path.name != "component.py" and path.parent != ROOT / "components"
    ],
    ids=lambda path: str(path.relative_to(ROOT / "components")),
)
def test_logic_imports_data_libraries_its_own_stage_and_what_is_shared(path):
    stage = path.relative_to(ROOT / "components").parts[0]
    own = (f"penstock.components.{stage}", "penstock.components._shared")
    assert breaches(path, lambda name, _: name.split(".")[0] in DATA or under(name, *own)) == []


@pytest.mark.parametrize("path", files("components/*/backends/*.py"), ids=lambda path: path.stem)
def test_a_backend_imports_no_other_backend(path):
    backends = ".".join(("penstock", *path.parent.relative_to(ROOT).parts))
    assert [name for name, _ in imports(path) if under(name, backends)] == []


# What a pipeline imports beside kfp and components, by file: none of it may be needed by `import penstock.pipelines`.
EXTRAS = {"vertex_training": ("google_cloud_pipeline_components",)}


@pytest.mark.parametrize("path", files("pipelines/**/*.py"), ids=lambda path: path.stem)
def test_a_pipeline_imports_kfp_and_components(path):
    def allowed(name: str, _: bool) -> bool:
        is_component = under(name, "penstock.components") and name.count(".") == 2 and "._" not in name
        allowed_too = ("kfp", "penstock.pipelines", "penstock.components.images", *EXTRAS.get(path.stem, ()))
        return under(name, *allowed_too) or is_component

    assert breaches(path, allowed) == []
    own = f"penstock.pipelines.{path.stem}"
    if path.stem in EXTRAS:
        assert not any(under(name, own) for each in files("pipelines/**/*.py") for name, _ in imports(each))


@pytest.mark.parametrize("path", files("compile/**/*.py"), ids=lambda path: str(path.relative_to(ROOT / "compile")))
def test_the_tools_know_no_component_and_targets_do_not_know_each_other(path):
    parts = path.relative_to(ROOT / "compile").parts
    third_party = {"yaml"} if path.name != "launcher.py" else set()
    if path.name == "to_kfp.py":  # the one module that calls KFP's compiler
        third_party |= {"kfp"}
    if parts[0] in ("cli.py", "_cli"):
        third_party |= {"click", "rich"}
    third_party |= {  # the one module that calls it, in a function
        "container_engine.py": {"docker"},
        "images.py": {"docker"} if parts[0] == "images.py" else set(),
        "serving_smoke.py": {"docker"},
        "fetch.py": {"fsspec", "aiohttp"},
        "lineage.py": {"openlineage"},
        "on_event.py": {"google"},
    }.get(path.name, set())
    if parts[0] == "targets":
        third_party |= {
            "vertex": {"google", "requests"},
            "kubeflow": {"kfp", "kfp_server_api", "urllib3"},
            "azureml": {"azure", "marshmallow", "requests"},
        }.get(parts[1], set())

    def allowed(name: str, _: bool) -> bool:
        if under(name, "penstock.compile.targets") and parts[0] == "targets" and len(parts) > 2:
            return under(name, f"penstock.compile.targets.{parts[1]}")
        if parts[0] == "testing":  # for tests: each stand-in brings its client in, in the function that needs it
            return under(name, "penstock.compile", "penstock.testing", *CLIENTS.get(path.name, ()))
        messages = ("kfp.pipeline_spec", "google.protobuf") if path.name != "launcher.py" else ()
        return name.split(".")[0] in third_party or under(name, "penstock.compile", *messages)

    assert breaches(path, allowed) == []


@pytest.mark.parametrize("path", files("compile/testing/*/*.py"), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_stand_in_imports_no_other_stand_in(path):
    stand_ins = {
        folder.name for folder in (ROOT / "compile" / "testing").iterdir() if (folder / "__init__.py").exists()
    }
    others = [f"penstock.testing.{name}" for name in stand_ins - {path.parent.name}]
    assert [name for name, _ in imports(path) if under(name, *others)] == []


def test_nothing_is_unpickled():
    loaders = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
    for path in [*files("components/**/*.py"), *files("compile/**/*.py"), *files("pipelines/**/*.py")]:
        assert [name for name, _ in imports(path) if name.split(".")[0] in loaders] == [], path
