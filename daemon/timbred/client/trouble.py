"""What can go wrong between a program and a daemon, beside what the daemon itself answers."""

from timbred import errors
from timbred.protocol import messages as m


class NoDaemon(errors.ShuttingDown):
    """No daemon is there, or it ended while it worked on this. Ask again once it is back."""


class Silent(errors.WorkerLost, TimeoutError):
    """A daemon is there and doesn't answer any more."""


class CancelledElsewhere(errors.BadRequest):
    """Somebody else cancelled this request."""


def error_of(fail: m.Fail) -> errors.TimbredError:
    """The error that a `fail` stands for, of the class that its code has in `timbred.errors`."""
    if fail.code == errors.Busy.code:
        return errors.Busy(fail.message, fail.retry_after_s or 1.0)
    return errors.from_code(fail.code, fail.message)
