"""What Kubeflow Pipelines does not run, and its limits: a table, each row with its source."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from penstock.compile import commands, graph, kubernetes_document
from penstock.compile._checks import limits, placeholders
from penstock.compile._checks.limits import Limit, Problem
from penstock.compile._checks.scopes import places
from penstock.compile.check import Spec
from penstock.compile.findings import Finding, Severity

NAME = "Kubeflow"

# Whatever registry they come from: mirrors keep the name of the image, or at least the module that it runs.
_OPERATOR_IMAGE = re.compile(r"(?:^|/)google-cloud-pipeline-components(?:$|[:@])")
_OPERATOR_MODULE = "google_cloud_pipeline_components."
_VERTEX_IMAGE = re.compile(
    r"[a-z]+-docker\.pkg\.dev/vertex-(?:ai-restricted|evaluation|ai/(?:automl-tabular|starryn|time-series-forecasting))/"
    r"|gcr\.io/ml-pipeline/(?:automl-tables-private|(?:llm-)?model-evaluation)(?:$|[:@/])"
)
_LABEL_NAME = re.compile(r"(?:[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def check(spec: Spec) -> Iterator[Finding]:
    """Yield what Kubeflow Pipelines would refuse, or run in another way than it is written."""
    yield from limits.check(spec, LIMITS, NAME)


def _google_placeholders(spec: Spec) -> Iterator[Problem]:
    for name, value in spec.values.items():
        if used := _google(placeholders.within(value)):
            yield "", f"the value of input {name} reads {used}, to which only Vertex AI gives a value"
    for place in places(spec.pipeline):
        steps = placeholders.of(place.task)
        values = (step for _, value in placeholders.values(place.task) for step in placeholders.within(value))
        if used := _google(itertools.chain(steps, values)):
            yield place.path, f"reads {used}, to which only Vertex AI gives a value"


def _google(steps: Iterable[tuple[str, ...]]) -> str:
    return ", ".join(sorted({step[0] for step in steps if len(step) == 1} & {*placeholders.GOOGLE}))


def _operators(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        body, name = place.task.component.body, place.task.component.name
        if not isinstance(body, graph.Container):
            continue
        command = commands.without_source(body)
        if _OPERATOR_IMAGE.search(body.image) or any(_OPERATOR_MODULE in element for element in command):
            yield place.path, f"component {name} is an operator of google-cloud-pipeline-components"
        elif _VERTEX_IMAGE.match(body.image):
            yield place.path, f"component {name} runs in {body.image}, an image that Google made for Vertex AI"


def _artifact_loops(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        if place.task.loop and place.task.loop.kind == "artifact":
            yield place.path, "loops over artifacts"


def _conditional_importers(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        if isinstance(place.task.component.body, graph.Importer) and place.task.trigger.condition:
            yield place.path, "is an importer with a condition of its own"


def _only_exit_tasks(spec: Spec) -> Iterator[Problem]:
    for path, scope in spec.pipeline.scopes():
        assert isinstance(scope.body, graph.Dag)
        if all(task.trigger.whatever_upstream for task in scope.body.tasks.values()):
            yield path, f"component {scope.name} has no task beside those that run when others have ended"


def _concat(spec: Spec) -> Iterator[Problem]:
    for place in places(spec.pipeline):
        body = place.task.component.body
        if isinstance(body, graph.Container) and any('"Concat"' in text for text in commands.without_source(body)):
            yield place.path, "its command has a Concat"


def _labels(spec: Spec) -> Iterator[Problem]:
    for path, settings in limits.settings(spec.pipeline, kubernetes_document.PLATFORM):
        metadata = settings.get("podMetadata", {})
        for name, value in metadata.get("labels", {}).items():
            if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(str(value)):
                yield path, f"the label {name}={value} is none that Kubernetes takes"


def _artifact_inputs(spec: Spec) -> Iterator[Problem]:
    for name, port in spec.pipeline.inputs.artifacts.items():
        if not port.optional:
            yield "", f"a run has to be given the artifact {name}"


_DAG = "kubeflow/pipelines, backend/src/v2/compiler/argocompiler/dag.go"

LIMITS = (
    Limit(
        "google-placeholder",
        Severity.ERROR,
        "placeholders of Google Cloud: project, location, service account, network, key",
        "google-cloud-pipeline-components, _placeholders.py",
        "give the value as a parameter",
        _google_placeholders,
    ),
    Limit(
        "vertex-operator",
        Severity.ERROR,
        "operators of google-cloud-pipeline-components and images of Vertex AI, which drive it or run as parts of it",
        "google-cloud-pipeline-components, README",
        "run it on Vertex AI, or put a component that runs anywhere in its place",
        _operators,
    ),
    Limit(
        "other-executor",
        Severity.ERROR,
        "resolvers and custom jobs",
        _DAG,
        "make it a container",
        limits.executors("resolver", "customJob"),
    ),
    Limit("artifact-loop", Severity.ERROR, "loops over artifacts", _DAG, "loop over parameters", _artifact_loops),
    Limit(
        "conditional-importer",
        Severity.ERROR,
        "importers with a condition",
        _DAG,
        "put the importer into a pipeline of its own inside the condition",
        _conditional_importers,
    ),
    Limit(
        "only-exit-tasks",
        Severity.ERROR,
        "pipelines, also inside others, whose tasks all run whatever came before",
        _DAG,
        "give it a task that runs first, or take it out",
        _only_exit_tasks,
    ),
    Limit(
        "artifact-input",
        Severity.ERROR,
        "artifacts that a run is given: its API takes parameters only",
        "kubeflow/pipelines, backend/api/v2beta1/run.proto, RuntimeConfig",
        "take its URI as a parameter, and import it",
        _artifact_inputs,
    ),
    Limit(
        "concat",
        Severity.WARNING,
        "Concat in a command, which reaches the container as it stands",
        "kubeflow/pipelines#8711",
        "join the text in the component, or with an f-string",
        _concat,
    ),
    Limit(
        "local-image",
        Severity.ERROR,
        "images that only this machine has",
        "Kubernetes: Images",
        "push them, and compile with --registry",
        limits.local_images,
    ),
    Limit(
        "parameters-size",
        Severity.ERROR,
        "10,000 bytes for all parameters of a run together",
        "kubeflow/pipelines#4828",
        "give a path or a URI in place of a long value",
        limits.parameters_above(10_000),
    ),
    Limit(
        "spec-size",
        Severity.WARNING,
        "from 700 kB on: the Argo workflow that is made of a spec is up to three times as large, near etcd's limit",
        "kubeflow/pipelines#13738",
        "slim it (penstock slim), or split the pipeline",
        limits.size_above(700_000),
    ),
    Limit(
        "workflow-size",
        Severity.WARNING,
        "1 MiB: above it Argo needs a database for the state of a workflow",
        "argo-workflows, docs/offloading-large-workflows.md",
        "slim it (penstock slim), split the pipeline, or configure node status offloading",
        limits.size_above(1 << 20),
    ),
    Limit(
        "etcd-size",
        Severity.ERROR,
        "1.5 MiB: what etcd takes in one request",
        "etcd, docs: System limits, --max-request-bytes",
        "slim it (penstock slim), or split the pipeline",
        limits.size_above(3 << 19),
    ),
    Limit(
        "bad-label",
        Severity.ERROR,
        "labels with other characters, or names or values of more than 63",
        "Kubernetes: Labels and Selectors",
        "use letters, digits, -, _ and ., at most 63",
        _labels,
    ),
)
