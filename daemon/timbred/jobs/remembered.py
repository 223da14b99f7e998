"""Which requests are known, so that one sent twice is never run twice."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from timbred.jobs.job import Job
from timbred.protocol.exchange import ClientId
from timbred.protocol.messages import Id

KEPT_CLIPS = 64 * 2**20
"""Bytes of samples kept for ended requests that wanted them inline, in case they ask again."""

Key = tuple[ClientId, str]


def key_of(client: ClientId, identity: Id) -> Key:
    """A request's name in the daemon. Pd sends 5 as a number, another patch as a symbol: both mean the same."""
    return client, str(identity)


class Remembered:
    """Jobs by client and id: the live ones, and for `patience` seconds the ended ones."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._live: dict[Key, Job] = {}
        self._ended: OrderedDict[Key, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        """Know a job from now on."""
        self._live[key_of(job.client, job.id)] = job

    def ended(self, job: Job) -> None:
        """The job has had its terminal event."""
        key = key_of(job.client, job.id)
        del self._live[key]
        job.ended = self._clock()
        self._ended[key] = job
        self._forget_old()
        self._limit_clips()

    def get(self, client: ClientId, identity: Id) -> Job | None:
        """The job of this name, live or ended not long ago."""
        self._forget_old()
        key = key_of(client, identity)
        return self._live.get(key) or self._ended.get(key)

    def live(self, client: ClientId | None = None) -> Iterator[Job]:
        """Jobs that haven't ended, of one client or all."""
        return (job for job in tuple(self._live.values()) if client in (None, job.client))

    def _forget_old(self) -> None:
        horizon = self._clock() - self._patience
        while self._ended:
            key, job = next(iter(self._ended.items()))
            if job.ended > horizon:
                return
            del self._ended[key]

    def _limit_clips(self) -> None:
        kept = 0
        for job in reversed(self._ended.values()):
            kept += sum(clip.samples.nbytes for clip in job.clips)
            if kept > KEPT_CLIPS:
                job.clips.clear()
