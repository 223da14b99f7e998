"""Whether there is a sound device, as the player process says."""

import asyncio
import contextlib

from timbred import errors
from timbred.delivery import wire

OPENED_WITHIN = 20.0
"""Seconds for which a first `play` waits until it is known whether there is a device."""


class Device:
    """The device that is open `now`, or why there is none; `known` once the process has said either."""

    def __init__(self) -> None:
        self.now: wire.Opened | None = None
        self.known = asyncio.Event()
        self.closed = False
        self._why_not = ""
        self._cannot_start = False

    def opened(self, device: wire.Opened) -> None:
        """There is one."""
        self.now, self._why_not = device, ""
        self.known.set()

    def missing(self, reason: str) -> None:
        """There is none."""
        self.now, self._why_not = None, reason
        self.known.set()

    def process_ended(self, reason: str) -> None:
        """Its process is gone; if the device went before, that is still what is wrong."""
        self.now = None
        if not self._why_not:
            self._why_not = f"the player process ended ({reason}) and is started again; play again in a second"

    def process_started(self) -> None:
        """There is a process, which is about to say whether there is a device."""
        if self._cannot_start:
            self._cannot_start, self._why_not = False, ""
            self.known.clear()

    def cannot_start(self, reason: str) -> None:
        """No player process can be started."""
        self.now, self._cannot_start = None, True
        self._why_not = f"the player can't be started: {reason}; files are made without it, and timbred tries again"
        self.known.set()

    def close(self) -> None:
        """The daemon stops: no device is wanted any more."""
        self.closed, self.now = True, None
        self.known.set()

    @property
    def error(self) -> errors.NoAudioDevice:
        """Why nothing can be played."""
        return errors.NoAudioDevice(self._why_not or "the player isn't ready yet; play again in a second")

    def needed(self) -> wire.Opened:
        """The device.

        Raises:
            NoAudioDevice: there is none; says why and what to do.
            ShuttingDown: the daemon stops.
        """
        if self.now is not None:
            return self.now
        if self.closed:
            raise errors.ShuttingDown("timbred is stopping; play again once it is back")
        raise self.error

    async def awaited(self) -> wire.Opened:
        """The device, once it is known whether there is one.

        Raises: as `needed`.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.known.wait(), OPENED_WITHIN)
        return self.needed()
