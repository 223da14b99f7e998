"""Who is next: `live` before `normal` before `background`, then by arrival. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from timbred.jobs.job import Job

RANK = {"live": 0, "normal": 1, "background": 2}


def _place(job: Job) -> tuple[int, int, int]:
    """A job that goes back after its engine was lost keeps its number, and with it its place."""
    return RANK[job.parameters.priority], 0 if job.attempts else 1, job.number


@dataclass
class Queue:
    """Waiting jobs in the order in which they will run."""

    limit: int
    _jobs: list[Job] = field(default_factory=list[Job])

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    @property
    def full(self) -> bool:
        return len(self._jobs) >= self.limit

    def add(self, job: Job) -> int:
        """Put a job in its place; says how many are before it."""
        self._jobs.append(job)
        self._jobs.sort(key=_place)
        return self.position(job)

    def position(self, job: Job) -> int:
        """How many jobs are before this one."""
        return self._jobs.index(job)

    def first(self) -> Job | None:
        """The job whose turn it is, left where it is; one that isn't ready lets others pass."""
        return next((job for job in self._jobs if job.ready), None)

    def next(self) -> Job | None:
        """Take the first job out."""
        return self._jobs.pop(0) if self._jobs else None

    def remove(self, job: Job) -> None:
        """Take a job out."""
        self._jobs.remove(job)

    def clear(self) -> None:
        """Take all jobs out."""
        self._jobs.clear()
