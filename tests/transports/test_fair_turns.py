"""Turns: steps of several connections one after the other."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from timbred.transports.clients import TURN_S, Turns


class _Clock:
    """A clock that goes on by a fixed time at each step that is taken."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_turns_run_steps_of_several_alternately() -> None:
    taken: list[tuple[str, int]] = []

    def steps(name: str, count: int) -> Iterator[None]:
        for number in range(count):
            taken.append((name, number))
            yield

    async def scene() -> None:
        turns = Turns()
        await asyncio.gather(turns.work(steps("a", 4)), turns.work(steps("b", 2)), turns.work(steps("c", 3)))

    await scene()
    assert [name for name, _ in taken] == list("abcabcaca")
    assert [number for name, number in taken if name == "a"] == [0, 1, 2, 3]


@pytest.mark.parametrize("turn_steps", [2, 3, 100])
async def test_turns_run_a_step_for_each_client_of_a_connection(turn_steps: int) -> None:
    """A turn that is longer than the loop may wait is continued where it was interrupted."""
    order: list[str] = []
    clock = _Clock()

    def steps(name: str, count: int) -> Iterator[None]:
        for _ in range(count):
            order.append(name)
            clock.now += TURN_S / turn_steps
            yield

    counts = itertools.chain([1, 3, 2], itertools.repeat(2))
    turns = Turns(clock)
    await asyncio.gather(turns.work(steps("a", 3)), turns.work(steps("m", 8), lambda: next(counts)))
    assert "".join(order) == "amammmammmm"


async def test_turns_let_the_loop_run_after_one_turns_time() -> None:
    order: list[str] = []
    clock = _Clock()

    def slow() -> Iterator[None]:
        for _ in range(6):
            order.append("step")
            clock.now += TURN_S / 2
            yield

    async def scene() -> None:
        turns = Turns(clock)
        loop = asyncio.get_running_loop()

        def other() -> None:
            order.append("loop")
            if len(order) < 9:
                loop.call_soon(other)

        loop.call_soon(other)
        await turns.work(slow())

    await scene()
    assert "".join(name[0] for name in order[:9]) == "lsslsslss"


async def test_turns_begin_a_few_at_a_time() -> None:
    order: list[str] = []

    async def scene() -> None:
        turns = Turns(lambda: 0.0)
        loop = asyncio.get_running_loop()

        async def heavy() -> None:
            await turns.begin()
            order.append("begun")

        def tick(left: int) -> None:
            order.append("loop")
            if left:
                loop.call_soon(tick, left - 1)

        loop.call_soon(tick, 12)
        await asyncio.gather(*(heavy() for _ in range(30)))

    await scene()
    longest = max(len(part) for part in "".join("b" if one == "begun" else " " for one in order).split())
    assert longest <= round(TURN_S / 0.001) + 1


async def test_turns_end_only_the_work_that_raises() -> None:
    done: list[int] = []

    def bad() -> Iterator[None]:
        yield
        raise ValueError("bad")

    def good() -> Iterator[None]:
        for number in range(3):
            done.append(number)
            yield

    async def scene() -> None:
        turns = Turns()
        work = asyncio.create_task(turns.work(good()))
        with pytest.raises(ValueError, match="bad"):
            await turns.work(bad())
        await work

    await scene()
    assert done == [0, 1, 2]


async def test_turns_run_no_step_of_cancelled_work() -> None:
    taken: list[int] = []

    def endless() -> Iterator[None]:
        while True:
            taken.append(1)
            yield

    turns = Turns()
    work = asyncio.create_task(turns.work(endless()))
    while not taken:
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    count = len(taken)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(taken) == count


async def test_turns_log_an_error_of_added_steps_and_continue_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        turns = Turns()

        def bad() -> Iterator[None]:
            yield
            raise ValueError("a fault")

        turns.add(bad())
        await turns.work(iter([None] * 5))
        await turns.work(iter([None] * 5))

    await scene()
    assert "a fault" in caplog.text
