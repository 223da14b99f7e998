"""Ableton Link: the tempo and the beat that all peers share."""

import asyncio
import time
from typing import Any

from timbred.errors import BadRequest


class LinkSession:
    """Our place among the peers."""

    def __init__(self, bpm: float, beats_per_bar: float) -> None:
        """Join, or wait for others to.

        Raises:
            BadRequest: the package aalink isn't installed.
        """
        self._loop = asyncio.new_event_loop()
        self._link: Any = self._loop.run_until_complete(_made(bpm))
        self._link.quantum = beats_per_bar
        self._link.start_stop_sync_enabled = True
        self._link.enabled = True

    @property
    def peers(self) -> int:
        return int(self._link.num_peers)

    @property
    def playing(self) -> bool:
        return bool(self._link.playing)

    def now(self) -> tuple[float, float, float]:
        """The moment (seconds of this process's monotonic clock), its beat, and the tempo."""
        before = time.monotonic()
        beat = float(self._link.beat)
        return 0.5 * (before + time.monotonic()), beat, float(self._link.tempo)

    def set_meter(self, beats_per_bar: float) -> None:
        self._link.quantum = beats_per_bar


async def _made(bpm: float) -> Any:
    try:
        import aalink
    except ImportError as error:
        raise BadRequest(f"link: it needs the Python package aalink ({error}); install it, or set link 0") from error
    return aalink.Link(bpm)
