"""How long jobs wait for others. Pure."""

from collections.abc import Collection

from timbred import errors
from timbred.jobs.estimates import Estimates
from timbred.jobs.job import Job
from timbred.jobs.queue import RANK, Queue
from timbred.protocol import messages as m


def wait_for(priority: str, running: Collection[Job], queue: Queue, estimates: Estimates) -> float:
    """Seconds that a new job with a deadline should wait, as far as known: for others that have one, for all that
    go before it while it isn't `live`, and for what any other is just doing."""
    there = [*running, *queue]
    before = [job for job in there if job.wanted or RANK["live"] < RANK[priority] >= RANK[job.parameters.priority]]
    others = [job.parameters for job in running if job not in before]
    longest = [max(estimates.of_step(other), estimates.of_rest(other)) for other in others]
    return sum(estimates.expected(job.parameters) for job in before) + max(longest, default=0.0)


def queued(job: Job, running: Collection[Job], queue: Queue, estimates: Estimates) -> m.Queued:
    """Where a waiting job stands, and when it should be done."""
    before = queue.position(job)
    involved = [*running, *list(queue)[:before], job]
    eta = sum(estimates.expected(one.parameters) for one in involved)
    return m.Queued(id=job.id, position=before + len(running), eta_s=eta, texts=job.texts or None)


def busy(running: Collection[Job], queue: Queue, estimates: Estimates) -> errors.Busy:
    """The queue is full: says when there should be room."""
    first = [*running, *queue][:1]
    seconds = max(1.0, sum(estimates.expected(job.parameters) for job in first))
    return errors.Busy(
        f"the queue is full ({len(queue)} wait); try again in {seconds:.0f} s, or raise queue.length", seconds
    )
