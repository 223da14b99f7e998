"""What a transport has read: a request, or the reason why it is none."""

from dataclasses import dataclass

from timbred.errors import BadRequest
from timbred.protocol import messages as m

LONGEST_ID = 200
"""Characters that a refusal's id place holds at most."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as read, or its refusal.

    `id` is what an answer puts in the id's place: the request's own id, else its type, else its address.
    `port` is where its answers go on the sender's own host (OSC's `@port`), known for refusals too.
    `due` is the UNIX time in seconds at which it is to be taken in; None is at once.
    """

    outcome: m.Request | BadRequest
    id: m.Id
    port: int | None = None
    due: float | None = None


def id_place(raw: object) -> m.Id:
    """What stands for `raw` in an answer: whole numbers as int, all else as text of at most 200 characters.

    >>> id_place(7.0), id_place(0.5), id_place("a1")
    (7, '0.5', 'a1')
    """
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, float):
        return int(raw) if raw.is_integer() else f"{raw:.7g}"
    return str(raw).replace("\x00", "")[:LONGEST_ID]
