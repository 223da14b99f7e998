"""What jobs take in the engine becomes estimates for others."""

import pytest

from timbred.models.registry import pocket_card
from timbred.protocol.messages import Generate
from timbred.requests.deadline import LATEST_STEPS, OVERHEAD_STEPS, EtaEstimates, JobTimer
from timbred.requests.resolve import Parameters, Session, resolve


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def parameters(seconds: float = 2.0, steps: int = 10, **keys: object) -> Parameters:
    given: dict[str, object] = {"guidance": 3.0, **keys}
    request = Generate(id=1, prompt="pad", seconds=seconds, steps=steps, **given)  # pyright: ignore[reportArgumentType]
    return resolve(request, pocket_card(), Session(), 0)


def run(estimates: EtaEstimates, clock: Clock, what: Parameters, loads: bool = False) -> None:
    """Run one job: 0.3 s of text encoding (after 9 s of loading), 0.1 s a step, 0.4 s of decoding."""
    timer = JobTimer(what, clock)
    if loads:
        timer.loading = True
        clock.now += 9.0
    clock.now += 0.3
    for _ in range(what.steps):
        clock.now += 0.1
        timer.add_step()
    clock.now += 0.4
    timer.finish(estimates)


def test_job_timer_separates_steps_from_the_rest():
    clock, estimates = Clock(), EtaEstimates()
    run(estimates, clock, parameters())
    assert estimates.of_step(parameters()) == pytest.approx(0.1)
    assert estimates.of_overhead(parameters()) == pytest.approx(0.7)
    assert estimates.expected(parameters(seconds=4.0, steps=20)) == pytest.approx(2 * (20 * 0.1 + 0.7))
    assert estimates.expected(parameters(takes=2)) == pytest.approx(2 * 1.7)
    assert estimates.expected(parameters(guidance=1.0)) == pytest.approx(10 * 0.05 + 0.7)


def test_job_timer_leaves_out_the_time_of_loading_a_model():
    clock, estimates = Clock(), EtaEstimates()
    run(estimates, clock, parameters(), loads=True)
    assert estimates.expected(parameters()) == pytest.approx((10 + OVERHEAD_STEPS) * 0.1)
    run(estimates, clock, parameters())
    assert estimates.expected(parameters()) == pytest.approx(1.7)


def test_eta_estimates_ignore_disturbed_jobs_and_need_several():
    clock, estimates = Clock(), EtaEstimates()
    for slow in (False, True, False):
        assert not estimates.is_sure("pocket")
        timer = JobTimer(parameters(steps=2), clock)
        timer.add_step()
        clock.now += 90.0 if slow else 0.1
        timer.add_step()
        clock.now += 50.0 if slow else 0.5
        timer.finish(estimates)
    assert estimates.is_sure("pocket")
    assert estimates.expected(parameters(steps=2)) == pytest.approx(0.7)


def test_eta_estimates_are_unknown_without_a_step():
    clock, estimates = Clock(), EtaEstimates()
    assert not estimates.knows("pocket")
    assert estimates.expected(parameters()) == 0.0
    timer = JobTimer(parameters(), clock)
    clock.now += 100.0
    timer.finish(estimates)
    assert not estimates.knows("pocket")
    estimates.add(parameters(), 0.1, None)
    assert estimates.of_overhead(parameters()) == pytest.approx(OVERHEAD_STEPS * 0.1)


def test_job_timer_pace_is_that_of_the_latest_steps():
    clock = Clock()
    timer = JobTimer(parameters(), clock)
    for each in (5.0, 0.1, 0.1, 0.1):
        clock.now += each
        timer.add_step()
        assert timer.step_now == 0.0
    for _ in range(LATEST_STEPS):
        clock.now += 0.3
        timer.add_step()
    assert timer.step_now == pytest.approx(0.3)
