"""What Vertex AI Pipelines does not run, and its limits: a table, each row with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.compile import commands, graph, kubernetes_document
from penstock.compile._checks import limits, placeholders
from penstock.compile._checks.limits import Limit, Problem
from penstock.compile._checks.scopes import places
from penstock.compile.check import Spec
from penstock.compile.findings import Finding, Severity

NAME = "Vertex AI"
COLLECTED = 100

_JOB_NAME = re.compile(r"[a-z][-a-z0-9]{0,127}")
_LONGEST_DESCRIPTION = 1024


def check(spec: Spec) -> Iterator[Finding]:
    """Yield what Vertex AI Pipelines would refuse, or run in another way than it is written."""
    yield from limits.check(spec, LIMITS, NAME)


def _documents(spec: Spec) -> Iterator[Problem]:
    if spec.documents.two:
        platforms = ", ".join(sorted(spec.documents.platforms.get("platforms", {}))) or "no platform"
        yield "", f"the file has a second document, with settings for {platforms}"


def _kubernetes(spec: Spec) -> Iterator[Problem]:
    for path, found in limits.settings(spec.pipeline, kubernetes_document.PLATFORM):
        yield path, f"has settings for Kubernetes: {', '.join(sorted(found))}"


def _volumes(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Container) and body.image in commands.VOLUME_IMAGES:
            yield place.path, "creates or deletes a volume of Kubernetes"


def _workspace(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        body = place.task.component.body
        imported = isinstance(body, graph.Importer) and body.download_to_workspace
        if imported or ("workspace_path",) in placeholders.of(place.task):
            yield place.path, "uses the workspace, a volume of Kubernetes"


def _name(spec: Spec) -> Iterator[Problem]:
    if not _JOB_NAME.fullmatch(spec.pipeline.name):
        yield "", f"pipelineInfo: of the name {spec.pipeline.name!r} no id of a job can be made"


def _descriptions(spec: Spec) -> Iterator[Problem]:
    texts = {"description": spec.pipeline.description, "displayName": spec.pipeline.display_name}
    for name, text in texts.items():
        if len(text) > _LONGEST_DESCRIPTION:
            yield "", f"pipelineInfo: the {name} has {len(text):,} characters, more than {_LONGEST_DESCRIPTION:,}"


def _collected(spec: Spec) -> Iterator[Problem]:
    """Find tasks that take an artifact from each of too many iterations, as far as these are counted in the spec."""
    for path, scope in spec.pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        for name, task in scope.body.tasks.items():
            for port, given in task.inputs.items():
                if isinstance(given.source, graph.TaskOutput) and port in task.component.inputs.artifacts:
                    count = _iterations(scope.body, given.source)
                    if count > COLLECTED:
                        here = f"{path}.{name}" if path else name
                        yield here, f"input {port} collects {count:,} artifacts, more than {COLLECTED}"


def _iterations(dag: graph.Dag, source: graph.TaskOutput) -> int:
    """Return how many artifacts an output stands for: the items of the loops, one in another, that give it."""
    task = dag.tasks.get(source.task)
    if task is None:
        return 0
    here = len(task.loop.items) if task.loop and not isinstance(task.loop.items, str) else 1
    if not isinstance(task.component.body, graph.Dag):
        return here
    inner = task.component.body.outputs.get(source.port, ())
    return here * max((_iterations(task.component.body, each) for each in inner), default=1)


_API = "Vertex AI API, PipelineJob"

LIMITS = (
    Limit(
        "two-documents",
        Severity.ERROR,
        "a second document of platform settings",
        "google-cloud-aiplatform, utils/yaml_utils.py: a file is one document",
        "compile for Vertex AI without them",
        _documents,
    ),
    Limit(
        "kubernetes-settings",
        Severity.ERROR,
        "settings for Kubernetes: volumes, secrets, node selectors, …",
        "kubeflow/pipelines, kubernetes_platform/README.md",
        "compile for Vertex AI without them; secrets come from Secret Manager, files from Cloud Storage",
        _kubernetes,
    ),
    Limit(
        "volume",
        Severity.ERROR,
        "volumes of Kubernetes as tasks",
        "kubeflow/pipelines, kubernetes_platform/README.md",
        "pass files as artifacts",
        _volumes,
    ),
    Limit(
        "workspace",
        Severity.ERROR,
        "the workspace of a run",
        "kubeflow/pipelines, proposals: KFP workspace",
        "pass files as artifacts",
        _workspace,
    ),
    Limit(
        "job-name",
        Severity.ERROR,
        "names of pipelines that do not match [a-z][-a-z0-9]{0,127}, as ids of jobs must",
        "google-cloud-aiplatform, pipeline_jobs.py",
        "name it with lower-case letters, digits and -",
        _name,
    ),
    Limit(
        "long-text",
        Severity.WARNING,
        "descriptions and display names of more than 1,024 characters",
        "kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto, PipelineInfo",
        "shorten it",
        _descriptions,
    ),
    Limit(
        "collected-artifacts",
        Severity.ERROR,
        "more than 100 artifacts collected into one input",
        "Vertex AI documentation: Vertex AI Pipelines quotas",
        "collect parameters such as URIs, or collect in groups",
        _collected,
    ),
    Limit(
        "local-image",
        Severity.ERROR,
        "images that only this machine has",
        _API,
        "push them, and compile with --registry",
        limits.local_images,
    ),
)
