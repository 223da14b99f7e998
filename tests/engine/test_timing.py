"""The number of threads follows the machine."""

from collections.abc import Callable

from timbred.engine.batching import MAX_TRIED_S, RETRIAL_INTERVAL_STEPS, TRIAL_STEPS, ThreadTuner


def used(choice: ThreadTuner, seconds: Callable[[int], float], steps: int) -> list[int]:
    counts: list[int] = []
    for _ in range(steps):
        count = choice.choose_threads("work")
        choice.record("work", count, seconds(count))
        counts.append(count)
    return counts


def test_thread_tuner_keeps_the_faster_choice():
    choice = ThreadTuner(4)
    counts = used(choice, lambda count: 0.1 / count, 200)
    assert counts.count(4) >= 200 - TRIAL_STEPS * (2 + 200 // RETRIAL_INTERVAL_STEPS)


def test_thread_tuner_notices_a_machine_that_gets_busy_or_free():
    choice = ThreadTuner(2)
    used(choice, lambda count: 0.03 / count, 50)
    busy = used(choice, lambda count: {1: 0.03, 2: 0.3}[count], 100)
    assert busy[5:].count(2) <= TRIAL_STEPS * (100 // RETRIAL_INTERVAL_STEPS + 1)
    free = used(choice, lambda count: 0.03 / count, 3 * RETRIAL_INTERVAL_STEPS)
    assert free[-RETRIAL_INTERVAL_STEPS:].count(2) >= RETRIAL_INTERVAL_STEPS - TRIAL_STEPS


def test_thread_tuner_ignores_one_slow_step():
    choice = ThreadTuner(2)
    for step in range(RETRIAL_INTERVAL_STEPS):
        threads = choice.choose_threads("work")
        choice.record("work", threads, {1: 0.012, 2: 1.0 if step == 20 else 0.009}[threads])
    assert choice.choose_threads("work") == 2


def test_thread_tuner_does_not_count_the_cost_of_changing():
    choice, last = ThreadTuner(2), 1
    for _ in range(200):
        count = choice.choose_threads("work")
        choice.record("work", count, 0.03 / count + (0.1 if count != last else 0.0))
        last = count
    assert choice.choose_threads("work") == 2


def test_thread_tuner_does_not_try_long_work_on_one_thread():
    assert set(used(ThreadTuner(2), lambda count: 2 * MAX_TRIED_S / count + 0.01, 200)) == {2}
    assert set(used(ThreadTuner(2), lambda count: 2 * MAX_TRIED_S / count - 0.01, 200)) == {1, 2}


def test_thread_tuner_has_no_choice_on_one_core():
    assert set(used(ThreadTuner(1), lambda _: 0.1, 50)) == {1}


def test_thread_tuner_leaves_a_core_to_a_load():
    assert [ThreadTuner(most).threads_beside_other_work() for most in (1, 2, 16)] == [1, 1, 15]
