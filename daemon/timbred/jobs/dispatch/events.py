"""Jobs, takes and errors as clients hear of them. Pure."""

from collections.abc import Iterator

from timbred import errors
from timbred.clip import Clip
from timbred.engine import wire
from timbred.jobs.job import Job, State
from timbred.library.takes import StoredTake
from timbred.protocol import messages as m


def started(job: Job) -> m.Started:
    """The engine works on it."""
    return m.Started(id=job.id, model=job.parameters.model, texts=job.texts or None)


def read_in_parts(job: Job, text: wire.TextRead) -> m.Warned:
    """One of its texts is longer than the model's text encoders read at once."""
    model = job.parameters.model
    if text.read < text.characters:
        message = f"{model} reads the first {text.read} of {text.characters} characters: say it in fewer words"
    else:
        more = f"{text.characters} characters are more than {model} reads at once"
        message = f"{more}: it reads them in {text.parts} parts"
    return m.Warned(
        id=job.id,
        key=text.key,
        message=message,
        characters=text.characters,
        heard=text.read,
        parts=text.parts,
    )


def loading(job: Job, eta: float) -> m.Progress:
    """It waits for its model, and should be done in `eta` seconds after that."""
    return m.Progress(id=job.id, fraction=0.0, step=0, steps=job.parameters.steps, eta_s=eta, stage="loading")


def progress(job: Job, step: wire.Step) -> m.Progress:
    """A step of it is done."""
    return m.Progress(
        id=job.id, fraction=step.step / step.steps, step=step.step, steps=step.steps, eta_s=step.remaining
    )  # fmt: skip


def take_event(identity: m.Id, take: StoredTake, index: int) -> m.Take:
    """A stored take."""
    return m.Take(
        id=identity,
        index=index,
        path=str(take.path or ""),
        seconds=take.seconds,
        rate=take.rate,
        channels=take.channels,
        seed=take.seed,
        score=take.score or 0.0,
        take_id=take.take_id,
    )


def failure(identity: m.Id, error: errors.TimbredError) -> m.Fail:
    """An error as the event that ends a request."""
    retry_after = error.retry_after if isinstance(error, errors.Busy) else None
    return m.Fail(id=identity, code=error.code, message=str(error), retry_after_s=retry_after)


def told_so_far(job: Job) -> Iterator[tuple[m.Event, Clip | None]]:
    """Where a job stands that doesn't wait any more, with the sounds of those who wanted them inline."""
    if job.state is not State.ENDED:
        yield started(job), None
    for warning in job.warnings:
        yield warning, None
    clips = job.clips if len(job.clips) == len(job.takes) else [None] * len(job.takes)
    yield from zip(job.takes, clips, strict=True)
    if job.terminal is not None:
        yield job.terminal, None
