"""A model to an endpoint that has its traffic."""

from typing import Any, Dict, List

from kfp import dsl

from penstock.components import deploy, roll_out


@dsl.pipeline(name="deploy-model")
def deploy_model(
    endpoint: str = "taxi-tips",
    registered_model: str = "taxi-tips@champion",
    registry: str = "",
    platform: str = "local",
    options: Dict[str, Any] = {},
    strategy: str = "canary",
    steps: List[int] = [],
    hold: Dict[str, float] = {},
    gate: List[str] = [
        "error_rate <= current + 0.01",
        "refusal_rate <= current + 0.01",
        "latency_p99 <= 2 * current + 0.05",
    ],
    unfinished: str = "resume",
    remove_idle: bool = False,
) -> None:
    """Deploy a registered model, and move the traffic of its endpoint to it as long as a gate holds.

    The first version of an endpoint gets all traffic at once; each later one step by step, and what does not hold the
    gate is rolled back and fails the run.

    Args:
        endpoint: Name of the endpoint; made if it is not there.
        registered_model: NAME@ALIAS or NAME/VERSION in the registry.
        registry: URI of the MLflow registry.
        platform: Where it runs: "local"; see deploy.
        options: What that platform needs besides; see deploy.
        strategy: "canary", "blue_green" or "shadow"; see roll_out.
        steps: Per cent of the traffic, ascending, 100 last. Empty: the strategy's own.
        hold: How long a step is: "requests", "seconds", "least"; see roll_out.
        gate: Conditions that hold at every step; see roll_out.
        unfinished: What becomes of a rollout that was killed: "resume" or "roll_back".
        remove_idle: Undeploy the version that has no traffic in the end.
    """
    where = {"endpoint": endpoint, "platform": platform, "options": options}
    deployed = deploy(registered_model=registered_model, registry=registry, **where)
    roll_out(
        version=deployed.outputs["version"],
        strategy=strategy,
        steps=steps,
        hold=hold,
        gate=gate,
        unfinished=unfinished,
        remove_idle=remove_idle,
        **where,
    )
