"""Messages under way to a player process that is lost: each play still gets its end. No process, no device."""

import time
from typing import Any

import numpy as np
import pytest

from tests.player.player_stage import RATE, RecordingOutbox, play
from timbred.config import load
from timbred.ipc import player_messages
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m


def open_player() -> tuple[PlayerClient, RecordingOutbox]:
    """A player whose process has opened a device, and was lost since without a word."""
    outbox = RecordingOutbox()
    subject = PlayerClient(outbox, load(None, {}, []))
    subject.child_message_received(
        player_messages.DeviceOpened(device="d", rate=RATE, channels=2, block=64, latency=0.0, lead=0.01, raised=False),
        [],
    )
    return subject, outbox


def began(subject: PlayerClient, number: int) -> None:
    subject.child_message_received(player_messages.VoicePlaying(play=number, frame=0, beat=0.0), [])


def reported(outbox: RecordingOutbox) -> list[m.Event]:
    return [outbox.events.get_nowait()[1] for _ in range(outbox.events.qsize())]


async def test_player_client_ends_a_broken_sound_when_the_player_is_lost():
    subject, outbox = open_player()
    kept, broken = play(subject, np.zeros((RATE, 2)), 1), play(subject, np.zeros((RATE, 2)), 2)
    for number in (kept, broken):
        began(subject, number)
    subject.end_early(broken)
    subject.child_lost("killed")
    ends = [event for event in reported(outbox) if isinstance(event, m.Ended)]
    assert [(end.voice, end.reason) for end in ends] == [(2, "stopped")]
    assert subject.has(1) and not subject.has(2)


async def test_player_client_ends_the_voice_of_a_stop_lost_with_the_player():
    subject, outbox = open_player()
    began(subject, play(subject, np.zeros((RATE, 2)), 1))
    subject.stop_voice("other", m.Stop(voice=1))  # pyright: ignore[reportArgumentType]
    subject.child_lost("killed")
    subject.child_lost("killed again before it was ready")
    ends: list[Any] = [event for event in reported(outbox) if isinstance(event, m.Ended)]
    assert [(end.voice, end.reason) for end in ends] == [(1, "stopped")] * 2, "who asked for it hears it too"
    assert not subject.has(1)


async def test_player_client_applies_a_change_without_a_player_to_the_next_one():
    subject, _ = open_player()
    number = play(subject, np.zeros((RATE, 2)), 1)
    began(subject, number)
    subject.change("c", m.Set(voice=1, gain=-20.0))  # pyright: ignore[reportArgumentType]
    order = subject.order_of(number)
    assert order is not None
    assert order.gain == -20.0


@pytest.mark.parametrize(("loop", "place", "expected"), [(False, 10_000.0, 14_800.0), (True, 47_000.0, 3_800.0)])
async def test_player_client_continues_a_voice_where_it_was_heard_last(
    monkeypatch: pytest.MonkeyPatch, loop: bool, place: float, expected: float
):
    """0.12 s after the last beat, and 0.02 s of it were mixed ahead and never heard."""
    subject, _ = open_player()
    number = play(subject, np.zeros((RATE, 2)), 1, loop)
    began(subject, number)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    at = player_messages.Position(play=number, position=place, gain=0.0, pan=0.0, speed=1.0)
    subject.child_message_received(
        player_messages.PlayerHeartbeat(frame=0, beat=0.0, bpm=120.0, peers=0, underruns=0, lead=0.02, positions=(at,)),
        [],
    )
    monkeypatch.setattr(time, "monotonic", lambda: 100.12)
    subject.child_lost("killed")
    order = subject.order_of(number)
    assert order is not None
    assert order.position == pytest.approx(expected)
