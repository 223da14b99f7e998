"""How long a sound with a deadline waits for others before its turn."""

import pytest

from tests.requests.test_eta import parameters
from tests.requests.test_model_residency import Stage
from tests.requests.test_resolve import resolved
from tests.requests.test_scheduler import CARD
from timbred.protocol.boundary import ClientId
from timbred.requests import scheduler
from timbred.requests.deadline import DeadlineRequest, EtaEstimates
from timbred.requests.job import Job

STEP, REST, WHOLE = 0.1, 0.7, 1.7
"""Seconds that a step of these sounds takes, all else of it, and the whole of it with its ten steps."""


def wait(priority: str, *jobs: tuple[str, bool], running: int = 1) -> float:
    """How long a sound waits for jobs of these priorities, some with a deadline; the first are in the engine."""
    estimates = EtaEstimates()
    estimates.add(parameters(), STEP, REST)
    there = [job(number, *one) for number, one in enumerate(jobs)]
    return scheduler.expected_wait(priority, there[:running], there[running:], estimates)


def job(number: int, priority: str, wanted: bool) -> Job:
    made = Job(number, ClientId("a"), number, parameters(priority=priority))
    made.deadline = DeadlineRequest(lambda: 10.0, 4) if wanted else None
    return made


@pytest.mark.parametrize("priority", ["live", "normal", "background"])
def test_scheduler_starts_a_deadline_job_at_once_on_an_idle_engine(priority: str):
    assert wait(priority) == 0.0


@pytest.mark.parametrize("other", ["live", "normal", "background"])
def test_scheduler_waits_only_for_the_current_work_of_jobs_without_a_deadline(other: str):
    assert wait("live", (other, False), (other, False), running=2) == pytest.approx(REST)


def test_scheduler_waits_for_earlier_jobs_with_a_deadline():
    there = ("live", False), ("live", True), ("normal", True), ("live", False)
    assert wait("live", *there) == pytest.approx(REST + 2 * WHOLE), "the last one isn't begun"


def test_scheduler_counts_queued_jobs_before_a_job_that_is_not_live():
    there = ("background", False), ("live", False), ("normal", False)
    assert wait("normal", *there) == pytest.approx(REST + 2 * WHOLE)
    assert wait("background", *there) == pytest.approx(3 * WHOLE)
    assert wait("live", *there) == pytest.approx(REST)


async def test_scheduler_plans_a_deadline_for_the_engine_that_is_free():
    stage = Stage(2)
    stage.loaded(1)
    stage.loaded(2)
    sound = resolved(CARD, model="pocket", priority="live")
    stage.scheduler.estimates.add(sound, STEP, REST)
    waits: list[float] = []
    for name in ("one", "two", "three"):
        waits.append(stage.scheduler.pace(sound, "live").wait)
        stage.scheduler.submit(ClientId("a"), name, sound, deadline=DeadlineRequest(lambda: 10.0, 4))
    whole = stage.scheduler.estimates.expected(sound)
    assert waits == [0.0, 0.0, pytest.approx(whole)]
    assert [job.engine for job in stage.scheduler.jobs.running()] == [1, 2, 1]
    await stage.scheduler.stop(0.0)
