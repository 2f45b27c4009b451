"""The declarations of `deploy`, `roll_out`, `set_traffic` and `undeploy`."""

from typing import Any, Dict, List, NamedTuple, Optional  # kfp reads these names

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("clouds"), install_kfp_package=False)
def deploy(
    endpoint: str,
    model: Optional[Input[Model]] = None,
    registered_model: str = "",
    registry: str = "",
    platform: str = "local",
    options: Dict[str, Any] = {},
    tolerance: float = 1e-6,
) -> NamedTuple("Deployed", [("url", str), ("version", str), ("traffic", int), ("current_version", str)]):
    """Let a model answer at an endpoint, tried with its own example before it gets any traffic.

    The first version of an endpoint gets all traffic, a later one none until roll_out or set_traffic gives it some. The
    same model is the same version, however often and by however many it is deployed.

    Args:
        endpoint: Name of the endpoint, 3 to 32 small letters, digits and hyphens; made if it is not there.
        model: Model written by train.
        registered_model: NAME@ALIAS or NAME/VERSION in the registry, in place of model.
        registry: URI of the MLflow registry. Empty: the environment's, or the local run folder's.
        platform: Where it runs: "local", on this machine; "kubeflow", as an InferenceService of KServe; "vertex", at an
            Endpoint of Vertex AI; "azureml", at a managed online endpoint of Azure ML.
        options: What that platform needs besides, by name; see the README.
        tolerance: By how much numbers may differ from what the model predicts in this step, relative and absolute.

    Returns:
        url: Where the endpoint is asked.
        version: Name of the version: the same for the same model.
        traffic: Per cent of the requests that the version gets, 0 to 100.
        current_version: Version that gets the most of them; this one if it is the first.
    """
    from penstock.components.deployment.deploy import deploy

    result = deploy(
        model.path if model else None,
        endpoint=endpoint,
        model_uri=model.uri if model else "",
        registered_model=registered_model,
        registry=registry,
        platform=platform,
        options=options,
        tolerance=tolerance,
    )
    return (result.url, result.version, result.traffic, result.current)


@uncached
@dsl.component(base_image=image("clouds"), install_kfp_package=False)
def roll_out(
    endpoint: str,
    version: str,
    history: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    strategy: str = "canary",
    steps: List[int] = [],
    hold: Dict[str, float] = {},
    gate: List[str] = [
        "error_rate <= current + 0.01",
        "refusal_rate <= current + 0.01",
        "latency_p99 <= 2 * current + 0.05",
    ],
    labels: Optional[Input[Dataset]] = None,
    target: str = "",
    unfinished: str = "resume",
    on_rollback: str = "fail",
    remove_idle: bool = False,
    platform: str = "local",
    options: Dict[str, Any] = {},
) -> NamedTuple("RolledOut", [("promoted", bool), ("outcome", str), ("previous_version", str), ("reason", str)]):
    """Move the traffic of an endpoint to a version step by step, as long as a gate holds, and back if it does not.

    Args:
        endpoint: Name of the endpoint.
        version: Version to move traffic to, as deploy returns it.
        history: Every step with its traffic, metrics and conditions, as JSON.
        report: The same to look at, with plots.
        metrics: The new version's metrics in the last step.
        strategy: "canary": by steps; "blue_green": all at once, after a look at the current version; "shadow": copies
            of the requests first, whose answers nobody sees, then by steps.
        steps: Per cent of the traffic that the version gets, ascending, 100 last. Empty: 5, 25, 50 and 100 for
            "canary", 100 for the others.
        hold: How long a step is: until the version has answered `requests` (100) requests, `seconds` (60) at most; with
            fewer than `least` (1) requests by then, the gate does not hold.
        gate: Conditions that hold at every step, such as "error_rate <= current + 0.01", "latency_p99 <= 1.5 * current"
            or "agreement >= 0.95"; see the README.
        labels: Rows with request_id, row and the target, for metrics of quality such as "auc >= current - 0.01".
        target: Column of labels.
        unfinished: What becomes of a rollout that was killed half-way: "resume" to go on with it, "roll_back" to set
            traffic back to what it was before and end. One of another version is always rolled back.
        on_rollback: "fail" to fail after a rollback, "report" to go on with promoted false.
        remove_idle: Undeploy the version that has no traffic in the end: the previous one, or the new one after a
            rollback.
        platform: Where the endpoint is; see deploy.
        options: What that platform needs besides, by name, as deploy is given it.

    Returns:
        promoted: Whether the version has all traffic now.
        outcome: "promoted", "rolled_back", or "unchanged" where it had all traffic already.
        previous_version: Version that had the most traffic before; empty where there was none.
        reason: Why it was promoted or not, one line.
    """
    from penstock.components.deployment.roll_out import roll_out

    result = roll_out(
        history.path,
        report.path,
        endpoint=endpoint,
        version=version,
        strategy=strategy,
        steps=steps,
        hold=hold,
        gate=gate,
        labels=labels.path if labels else None,
        target=target,
        unfinished=unfinished,
        on_rollback=on_rollback,
        remove_idle=remove_idle,
        platform=platform,
        options=options,
    )
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    return (result.promoted, result.outcome, result.previous, result.reason)


@uncached
@dsl.component(base_image=image("clouds"), install_kfp_package=False)
def set_traffic(
    endpoint: str,
    traffic: Dict[str, int],
    platform: str = "local",
    options: Dict[str, Any] = {},
) -> NamedTuple("Moved", [("previous", Dict[str, int])]):
    """Give versions of an endpoint their shares of the traffic at once; {"VERSION": 100} goes back to a version.

    A rollout that is going on sees it, leaves it so, and fails.

    Args:
        endpoint: Name of the endpoint.
        traffic: Per cent of the requests by version, 100 in all.
        platform: Where the endpoint is; see deploy.
        options: What that platform needs besides, by name, as deploy is given it.

    Returns:
        previous: The shares before.
    """
    from penstock.components.deployment.deploy import set_traffic

    return (set_traffic(endpoint=endpoint, traffic=traffic, platform=platform, options=options),)


@uncached
@dsl.component(base_image=image("clouds"), install_kfp_package=False)
def undeploy(
    endpoint: str,
    version: str = "",
    platform: str = "local",
    options: Dict[str, Any] = {},
) -> NamedTuple("Undeployed", [("removed", bool)]):
    """Remove a version that gets no traffic from an endpoint, or the endpoint with all its versions.

    Args:
        endpoint: Name of the endpoint.
        version: Version to remove. Empty: the whole endpoint.
        platform: Where the endpoint is; see deploy.
        options: What that platform needs besides, by name, as deploy is given it.

    Returns:
        removed: Whether it was there.
    """
    from penstock.components.deployment.deploy import undeploy

    return (undeploy(endpoint=endpoint, version=version, platform=platform, options=options),)
