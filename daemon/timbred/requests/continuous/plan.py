"""What an endless sound is to be: the pieces that it is made of, one after the other. Pure."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from timbred.errors import BadRequest
from timbred.ipc.player_messages import Handover
from timbred.models.registry import Card
from timbred.protocol import messages as m
from timbred.protocol.keys import Recipe
from timbred.requests.resolve import Parameters, Session, resolve

CROSSFADE = 1.0
"""Seconds in which one piece becomes the next where nothing is said; at most half of a piece."""

SHORTEST_CROSSFADE = 0.02

LONG = 5.0
"""Seconds of a piece where nothing is said, if the model's own default is less and it can make so much: the longer, the
more time there is for the next."""

HALFWAY = 0.5
"""Where `mix` stands when nothing is said, as everywhere."""

NOT_OF_FLOW = (
    "takes", "rank", "loop", "noise", "trim", "extend", "fade_in", "fade_out", "rate", "format", "bits", "channels",
    "to", "inline", "name", "folder", "preview", "by",
)  # fmt: skip
"""Keys of a sound that say nothing of an endless one: it has no file, no end, and a new piece for each variation."""

PLAYED_SO = ("gain", "pan", "speed", "out", "at")


@dataclass(frozen=True)
class PlannedPiece:
    """A piece that is to be made. `lasts` are the seconds from its beginning to the next one's."""

    parameters: Parameters
    handover: Handover
    lasts: float


@dataclass(frozen=True)
class FlowPlan:
    """What was asked for, with which model; `mix` moves from `mix_before`, from `began` on (seconds, any clock)."""

    request: m.Flow
    card: Card
    seed: int
    began: float
    mix_before: float = 0.0
    init: Path | None = None
    init_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raises:
        BadRequest: a key that says nothing of an endless sound.
        """
        for key in NOT_OF_FLOW:
            if getattr(self.request, key) is not None:
                raise BadRequest(f"{key}: it says nothing of an endless sound; leave it out")

    def mix_at(self, moment: float) -> float:
        """How far towards `prompt2` it is; the second prompt is reached within `fade` seconds."""
        if self.request.prompt2 is None:
            return 0.0
        target = HALFWAY if self.request.mix is None else self.request.mix
        if not self.request.fade:
            return target
        share = min(1.0, max(0.0, (moment - self.began) / self.request.fade))
        return self.mix_before + (target - self.mix_before) * share

    def is_moving(self, moment: float) -> bool:
        """Whether `mix` is on its way."""
        fade = self.request.fade if self.request.prompt2 is not None else None
        return bool(fade) and moment < self.began + (fade or 0.0)

    @property
    def crossfade(self) -> float | None:
        """Seconds in which pieces give way as asked for; with `prompt2`, `fade` is how long `mix` takes."""
        return None if self.request.prompt2 is not None else self.request.fade

    def leads_on_from(self, before: "FlowPlan") -> bool:
        """Whether this only moves `mix`, so that what sounds need not be broken off."""
        return (
            self.request.prompt == before.request.prompt
            and self.is_moving(self.began)
            and all(getattr(self.request, key) is None for key in PLAYED_SO)
        )

    def piece(self, number: int, moment: float, session: Session, rate: int) -> PlannedPiece:
        """The piece with this number, which sounds at `moment` on a device of this rate.

        While `mix` moves, the noise stays: then the sound itself becomes another, not the whole of it anew.

        Raises:
            BadRequest: this model can't do it.
        """
        keys = {key: getattr(self.request, key) for key in Recipe.__struct_fields__ if key not in PLAYED_SO}
        seed = self.seed if self.is_moving(moment) else (self.seed + number) % 2**31
        mix = self.mix_at(moment) if self.request.prompt2 is not None else self.request.mix
        keys.update(seed=seed, mix=mix, rate=rate, to="none", inline=True, rank=False)
        if not any(keys[key] is not None for key in ("seconds", "bars", "init")):
            keys["seconds"] = min(self.card.max_seconds, max(self.card.default_seconds, LONG))
        keys.update(voice=None, fade=None, priority=self.request.priority or "live")
        asked = m.Generate(id="flow", prompt=self.request.prompt, **keys)
        whole = resolve(asked, self.card, session, seed, None, self.init_seconds)
        crossfade = min(CROSSFADE if self.crossfade is None else self.crossfade, whole.seconds / 2)
        if whole.bars is None:
            overlap = max(SHORTEST_CROSSFADE, crossfade)
            return PlannedPiece(whole, Handover(overlap=overlap), whole.seconds - overlap)
        return self._of_bars(asked, whole, crossfade, session)

    def _of_bars(self, asked: m.Generate, whole: Parameters, crossfade: float, session: Session) -> PlannedPiece:
        """A piece that lasts whole bars until the next begins, and some more to be crossfaded."""
        longest = self.card.max_seconds if self.init_seconds is None else min(self.card.max_seconds, self.init_seconds)
        overlap = min(max(SHORTEST_CROSSFADE, crossfade), longest - whole.seconds)
        if overlap < SHORTEST_CROSSFADE:
            raise BadRequest(
                f"bars: {whole.bars:g} bars last {whole.seconds:.4g} s, and with a crossfade that is more than the "
                f"{longest:g} s there are; ask for fewer"
            )
        longer = msgspec.structs.replace(
            asked, seconds=whole.seconds + overlap, bars=None, bpm=None, beats_per_bar=None
        )
        parameters = resolve(longer, self.card, session, whole.seed, None, self.init_seconds)
        on_the_grid = (whole.bpm, whole.beats_per_bar) == (session.tempo, session.beats_per_bar)
        return PlannedPiece(
            parameters, Handover(overlap=overlap, beats=whole.beats if on_the_grid else None), whole.seconds
        )


def mix_so_far(request: m.Flow, before: FlowPlan | None, moment: float) -> float:
    """How far the sound that there is stands towards the second prompt of a new course."""
    if before is None:
        return 0.0
    old = before.request
    if (request.prompt, request.prompt2) == (old.prompt2, old.prompt):
        return 1.0 - before.mix_at(moment)
    if request.prompt == old.prompt and request.prompt2 == old.prompt2:
        return before.mix_at(moment)
    return 0.0


def entering_like(before: str | None) -> str | None:
    """When a course of whole bars enters in the place of another such, where nothing is said: on the beat or bar if
    that one began there.

    >>> entering_like("bar"), entering_like("17"), entering_like("beat"), entering_like("now"), entering_like(None)
    ('bar', 'bar', 'beat', None, None)
    """
    if before in (None, "now"):
        return None
    return "beat" if before == "beat" else "bar"
