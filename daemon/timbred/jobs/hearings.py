"""What takes sound like comes from the engine after the sounds, while these become takes: both are brought together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class _Pending:
    takes: dict[int, str] = field(default_factory=dict[int, str])
    vectors: Sequence[bytes] = ()
    ear: str = ""
    delivered: bool = False


class Hearings:
    """`keep` gets take id, ear and vector as soon as both are known, once for each take."""

    def __init__(self, keep: Callable[[str, str, bytes], None]) -> None:
        self.keep = keep
        self._pending: dict[int, _Pending] = {}

    def expect(self, job: int) -> None:
        """The engine will say what this job's takes sound like."""
        self._pending[job] = _Pending()

    def take(self, job: int, index: int, take_id: str) -> None:
        """One of the job's takes is stored."""
        if (pending := self._pending.get(job)) is not None:
            pending.takes[index] = take_id
            self._settle(job, pending)

    def delivered(self, job: int) -> None:
        """No more takes of this job come."""
        if (pending := self._pending.get(job)) is not None:
            pending.delivered = True
            self._settle(job, pending)

    def heard(self, job: int, ear: str, vectors: Sequence[bytes]) -> None:
        """The engine has listened to the job's takes; without an ear it couldn't."""
        if (pending := self._pending.get(job)) is not None:
            pending.ear, pending.vectors = ear, vectors
            self._settle(job, pending)
            if not ear:
                del self._pending[job]

    def drop(self) -> None:
        """The engine is gone: what it hasn't said, it won't say."""
        self._pending = {job: pending for job, pending in self._pending.items() if pending.ear}

    def _settle(self, job: int, pending: _Pending) -> None:
        if not pending.ear:
            return
        for index, take_id in pending.takes.items():
            self.keep(take_id, pending.ear, pending.vectors[index])
        pending.takes.clear()
        if pending.delivered:
            del self._pending[job]
