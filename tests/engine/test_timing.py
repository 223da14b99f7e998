"""The number of threads follows the machine."""

from collections.abc import Callable

from timbred.engine.timing import TRIAL, TRIED_AGAIN_AFTER, ThreadTuner


def used(choice: ThreadTuner, seconds: Callable[[int], float], steps: int) -> list[int]:
    counts: list[int] = []
    for _ in range(steps):
        count = choice.next("work")
        choice.measured("work", count, seconds(count))
        counts.append(count)
    return counts


def test_the_faster_choice_is_kept():
    choice = ThreadTuner(4)
    counts = used(choice, lambda count: 0.1 / count, 200)
    assert counts.count(4) >= 200 - TRIAL * (2 + 200 // TRIED_AGAIN_AFTER)


def test_a_machine_that_gets_busy_is_noticed_and_one_that_gets_free_too():
    choice = ThreadTuner(2)
    used(choice, lambda count: 0.03 / count, 50)
    busy = used(choice, lambda count: {1: 0.03, 2: 0.3}[count], 100)
    assert busy[5:].count(2) <= TRIAL * (100 // TRIED_AGAIN_AFTER + 1)
    free = used(choice, lambda count: 0.03 / count, 3 * TRIED_AGAIN_AFTER)
    assert free[-TRIED_AGAIN_AFTER:].count(2) >= TRIED_AGAIN_AFTER - TRIAL


def test_one_slow_step_alone_changes_nothing():
    choice = ThreadTuner(2)
    for step in range(TRIED_AGAIN_AFTER):
        threads = choice.next("work")
        choice.measured("work", threads, {1: 0.012, 2: 1.0 if step == 20 else 0.009}[threads])
    assert choice.next("work") == 2


def test_the_cost_of_changing_is_not_counted():
    choice, last = ThreadTuner(2), 1
    for _ in range(200):
        count = choice.next("work")
        choice.measured("work", count, 0.03 / count + (0.1 if count != last else 0.0))
        last = count
    assert choice.next("work") == 2


def test_one_core_has_no_choice():
    assert set(used(ThreadTuner(1), lambda _: 0.1, 50)) == {1}


def test_a_load_gets_a_core_of_its_own():
    assert [ThreadTuner(most).beside() for most in (1, 2, 16)] == [1, 1, 15]
