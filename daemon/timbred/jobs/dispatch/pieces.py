"""The pieces of sounds that are heard while they are made."""

import logging
from collections.abc import Callable, Sequence

from timbred.engine import wire
from timbred.jobs.dispatch.sounds import piece_in
from timbred.jobs.job import Job
from timbred.library.takes import new_take_id
from timbred.render.early import Piece

log = logging.getLogger(__name__)


class Pieces:
    """Hands pieces to their listener. A listener that raises is logged: it must not keep a job from its end."""

    def __init__(self) -> None:
        self.on_piece: Callable[[Job, Piece], None] = lambda _job, _piece: None
        """Hears the pieces of a sound that is to be heard early, in order, from frame 0 on; `job.heard_as` is then the
        id that its take will have. After an engine was lost they begin anew with another run of the job."""
        self.on_broken: Callable[[Job], None] = lambda _job: None
        """Hears that no more pieces come of a job that sounded, for it was cancelled, failed, or is run once more."""

    def take(self, job: Job, message: wire.Piece, payload: Sequence[memoryview]) -> None:
        """The next piece of a job's sound is there."""
        if job.cancel_wanted:
            return
        job.heard_as = job.heard_as or new_take_id()
        try:
            self.on_piece(job, piece_in(message, payload))
        except Exception:
            log.exception("request %s: a piece of its sound can't be played; its file is still written", job.id)

    def break_off(self, job: Job) -> None:
        """What was heard of a job is not its take: that one will never be, or is made anew. A sound that is whole and
        only couldn't be written is left to be heard."""
        if job.heard_as:
            job.heard_as = ""
            try:
                self.on_broken(job)
            except Exception:
                log.exception("request %s: what was heard of it can't be ended", job.id)
