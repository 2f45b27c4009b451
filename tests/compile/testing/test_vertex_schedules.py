"""Schedules of the Vertex AI stand-in, by google-cloud-aiplatform itself."""

import pytest

from penstock.compile.errors import PenstockError
from penstock.testing import Script


@pytest.fixture
def vertex(vertex):
    vertex.play = Script("SUCCEEDED")  # so that no job is at work when the next one is due
    return vertex


def schedule(specs, cron="0 9 * * 1-5", **settings):
    from google.cloud import aiplatform

    job = aiplatform.PipelineJob(
        display_name="doubling", template_path=specs["doubling"], parameter_values={"number": 2}, labels={"a": "b"}
    )
    return job.create_schedule(cron, "weekdays", **settings)


def test_a_schedule_fires_by_hand_while_it_is_active(vertex, specs, aiplatform, exceptions):
    weekdays = schedule(specs)
    assert weekdays.state.name == "ACTIVE"
    name = vertex.fire(weekdays.resource_name)
    [job] = weekdays.list_jobs()
    assert job.resource_name == name
    assert aiplatform.PipelineJob.get(name).runtime_config.parameter_values["number"] == 2
    weekdays.pause()
    with pytest.raises(PenstockError, match="is PAUSED; only an ACTIVE one"):
        vertex.fire(weekdays.name)
    with pytest.raises(exceptions.BadRequest, match="not ACTIVE"):
        weekdays.pause()
    weekdays.resume()
    assert vertex.fire(weekdays.name)
    assert [each.name for each in aiplatform.PipelineJobSchedule.list(filter='display_name="weekdays"')] == [
        weekdays.name
    ]
    weekdays.delete()
    assert aiplatform.PipelineJobSchedule.list() == []


def test_time_that_passes_starts_what_is_due(vertex, specs):
    schedule(specs, "TZ=Europe/Berlin 0 9 * * 1-5")
    assert len(vertex.advance(days=7)) == 5
    assert vertex.advance(seconds=0) == []


def test_a_schedule_ends_after_the_runs_it_may_have(vertex, specs):
    twice = schedule(specs, max_run_count=2)
    assert len(vertex.advance(days=14)) == 2
    twice._sync_gca_resource()
    assert (twice.state.name, twice.gca_resource.started_run_count) == ("COMPLETED", 2)


def test_no_more_run_at_once_than_may_and_the_rest_waits_or_is_left_out(vertex, specs, aiplatform):
    vertex.play = Script("RUNNING")
    leaves_out, waits = schedule(specs), schedule(specs, allow_queueing=True)
    for each in (leaves_out, waits):
        first = vertex.fire(each.name)
        assert vertex.fire(each.name) is None
        aiplatform.PipelineJob.get(first).cancel()
        each._sync_gca_resource()
    assert len(leaves_out.list_jobs()) == 1
    assert len(waits.list_jobs()) == 2


def test_a_schedule_is_changed(vertex, specs):
    weekdays = schedule(specs)
    weekdays.update(cron="0 12 * * *", max_concurrent_run_count=3)
    assert (weekdays.cron, weekdays.max_concurrent_run_count) == ("0 12 * * *", 3)
    assert weekdays.gca_resource.next_run_time.hour == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cron": "0 9 * *"}, "cron: .* has 4 fields"),
        ({"cron": "TZ=Mars/Olympus 0 9 * * *"}, "cron: there is no time zone Mars/Olympus"),
        ({"max_run_count": -1}, "maxRunCount: has to be positive"),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(vertex, specs, settings, message, exceptions):
    with pytest.raises(exceptions.BadRequest, match=message):
        schedule(specs, **settings)
