"""The declaration of `notify`."""

from typing import Any, Dict, List, NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from penstock.components.caching import uncached
from penstock.components.images import image


@uncached
@dsl.component(base_image=image("tabular"), install_kfp_package=False)
def notify(
    status: PipelineTaskFinalStatus,
    channels: List[Dict[str, Any]] = [],
    when: str = "failure",
    title: str = "",
    run_id: str = "",
    run_url: str = "",
    facts: Dict[str, Any] = {},
    on_error: str = "fail",
) -> NamedTuple("Notified", [("told", bool), ("channels_reached", int)]):
    """Say on Slack, Teams, by e-mail or to a webhook which run passed or failed, where and why; for exit handlers.

    Args:
        status: How the tasks of the exit handler ended; the platform fills it in.
        channels: Where to say it, such as [{"kind": "slack", "url": "env:SLACK_WEBHOOK"}]; addresses that are secrets
            and passwords are references: env:NAME, file:PATH, gcp:… or azure:…. Empty: it is only printed.
        when: "failure" (failed or cancelled), "success" or "always".
        title: What ran, for the reader. Empty: the name of the exit handler.
        run_id: Id of the run, such as dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        run_url: Address of the run's page; {run_id} stands for the id. Empty: Vertex AI's page where it runs there.
        facts: More to tell, by name.
        on_error: "fail" to fail where a channel could not be reached, "report" to print it and go on.

    Returns:
        told: Whether there was something to tell.
        channels_reached: Number of channels that took the message.
    """
    from penstock.components.notification.notify import Final, notify

    final = Final(
        status.state,
        status.pipeline_task_name,
        status.pipeline_job_resource_name,
        status.error_code,
        status.error_message or "",
    )
    result = notify(
        final,
        channels=channels,
        when=when,
        title=title,
        run_id=run_id,
        run_url=run_url,
        facts=facts,
        on_error=on_error,
    )
    return (result.told, result.reached)
