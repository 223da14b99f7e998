"""Ableton Link: tempo and beat shared by all peers."""

import asyncio
import time
from typing import Any

from timbred.errors import BadRequest


class LinkSession:
    """The membership in a Link session.

    Args:
        bpm: the tempo to start with if there is no other peer.
        beats_per_bar: the meter.

    Raises:
        BadRequest: the package aalink isn't installed.
    """

    def __init__(self, bpm: float, beats_per_bar: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._link: Any = self._loop.run_until_complete(_create_link(bpm))
        self._link.quantum = beats_per_bar
        self._link.start_stop_sync_enabled = True
        self._link.enabled = True

    @property
    def peers(self) -> int:
        """The number of other peers."""
        return int(self._link.num_peers)

    @property
    def playing(self) -> bool:
        """True while the session plays."""
        return bool(self._link.playing)

    def now(self) -> tuple[float, float, float]:
        """Return the time (seconds of this process's monotonic clock), its beat, and the tempo."""
        before = time.monotonic()
        beat = float(self._link.beat)
        return 0.5 * (before + time.monotonic()), beat, float(self._link.tempo)

    def set_meter(self, beats_per_bar: float) -> None:
        """Set the beats of a bar."""
        self._link.quantum = beats_per_bar


async def _create_link(bpm: float) -> Any:
    try:
        import aalink
    except ImportError as error:
        raise BadRequest(f"link: it needs the Python package aalink ({error}); install it, or set link 0") from error
    return aalink.Link(bpm)
