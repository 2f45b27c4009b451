"""What each platform is sent for each pipeline of ours, as golden files; run as a module, it writes them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from penstock.compile import rewrites, submission
from penstock.compile.findings import errors
from penstock.compile.from_kfp import parse
from penstock.compile.submission import Place, Settings
from penstock.compile.yaml_writer import to_yaml
from penstock.testing import AzureMLStandIn, KubeflowStandIn, Script, VertexStandIn

GOLDEN = Path(__file__).parents[2] / "golden"
STAND_INS = {"kubeflow": KubeflowStandIn, "vertex": VertexStandIn, "azureml": AzureMLStandIn}
FOLDERS = {
    "kubeflow": "kubeflow",
    "vertex": "vertex",
    "azureml": "azureml-requests",
}  # the jobs of Azure are in azureml/
SETTINGS = {"pipeline_root": "gs://bucket/runs"}
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REGISTRY = "europe-docker.pkg.dev/my-project/penstock"


# Values for parameters that have no default.
_GIVEN = {
    "batch_scoring": {"model": "models:/taxi-tips@champion"},
    "vertex_training": {"region": "europe-west4", "serving_image": "europe-docker.pkg.dev/my-project/serve:1"},
}


def pipelines() -> list[Path]:
    """Return the golden specs that are pipelines, not components alone."""
    found = sorted(GOLDEN.glob("*.yaml"))
    return [path for path in found if len(parse(path.read_text()).dag.tasks) > 1]


def pinned(path: Path) -> str:
    """Return a golden spec whose images platforms can pull."""
    documents = list(yaml.load_all(path.read_text(), yaml.CSafeLoader))
    digests = {rewrites.split(image)[0]: f"sha256:{'0' * 64}" for image in rewrites.images(documents[0])}
    documents[0] = rewrites.pin_images(documents[0], digests, _REGISTRY)
    return "---\n".join(map(to_yaml, documents))


def sent(target: str, path: Path) -> str:
    """Return the requests that change something at a platform when a pipeline is submitted, as JSON.

    The spec in them, which has a golden file of its own, is left out. Where the platform does not take the pipeline,
    what is returned is why.
    """
    content = pinned(path).encode()
    with tempfile.TemporaryDirectory() as folder:
        prepared = submission.prepare(
            content,
            path.name,
            _GIVEN.get(path.stem, {}),
            None,
            "golden",
            settings=Settings(**(SETTINGS if target != "azureml" else {})),
            folder=Path(folder),
        )
    if refused := errors(submission.findings(prepared, target)):
        return _json({"refused": [str(finding) for finding in refused]})
    with STAND_INS[target](Script("SUCCEEDED")) as stand_in, stand_in.connected():
        submission.target(target).connect(place(stand_in)).submit(prepared)
        text = _json([*_requests(stand_in)]).replace(stand_in.url, "https://stand-in")
    # Ids that the platform makes up are told apart by the order in which they come.
    ids = list(dict.fromkeys(_ID.findall(text)))
    return _ID.sub(lambda match: f"id-{ids.index(match[0]) + 1}", text)


def place(stand_in: Any) -> Place:
    """Return what leads to a stand-in, beside what its clients know already."""
    if not isinstance(stand_in, AzureMLStandIn):
        return Place()
    scope = stand_in.scope
    return Place(subscription=scope.subscription, resource_group=scope.group, workspace=scope.workspace)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _requests(stand_in: Any) -> Iterator[dict[str, Any]]:
    for request in stand_in.requests:
        # What is uploaded is in the golden jobs.
        if request.method in ("GET", "HEAD") or request.path.startswith("/account."):
            continue
        body = dict(request.body or {})
        if "pipelineSpec" in body:
            body["pipelineSpec"] = "…"
        if "hash_sha256" in body.get("properties", {}).get("properties", {}):  # of the programs, too, which change
            body["properties"]["properties"]["hash_sha256"] = "…"
        if described := body.get("properties", {}).get("properties"):  # azure-ai-ml tells of the repository around it
            body["properties"]["properties"] = {
                name: value for name, value in described.items() if ".git." not in name and "git.dirty" not in name
            }
        yield {"request": f"{request.method} {request.path}", "query": dict(request.query), "body": body}


def main() -> None:
    for target in STAND_INS:
        (GOLDEN / FOLDERS[target]).mkdir(exist_ok=True)
        for path in pipelines():
            (GOLDEN / FOLDERS[target] / f"{path.stem}.json").write_text(sent(target, path), encoding="utf-8")


if __name__ == "__main__":
    main()
