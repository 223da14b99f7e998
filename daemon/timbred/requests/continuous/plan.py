"""Plans of flows: the parameters of each segment and the handover to the next. Pure."""

from dataclasses import dataclass, replace

import msgspec

from timbred.errors import BadRequest
from timbred.ipc.engine_messages import LoraUse
from timbred.ipc.player_messages import Handover
from timbred.models.embeddings import read_header
from timbred.models.registry import Card, Entry
from timbred.protocol import messages as m
from timbred.protocol.keys import Recipe
from timbred.requests.named_files import LATENTS, NO_FILES, JobFiles, find_embeddings
from timbred.requests.resolve import Parameters, Session, resolve
from timbred.storage.paths import AllowedFolders

DEFAULT_CROSSFADE_S = 1.0
"""Default seconds in which one segment fades into the next; at most half of a segment."""

MIN_CROSSFADE_S = 0.02
"""Shortest crossfade in seconds."""

MIN_DEFAULT_SECONDS = 5.0
"""Default seconds of a segment, if the model's default is less and it can render that long: this leaves more time to
render the next segment."""

DEFAULT_MIX = 0.5
"""Default of `mix`, as for all requests."""

UNUSED_KEYS = (
    "takes", "rank", "fit", "loop", "noise", "trim", "extend", "fade_in", "fade_out", "rate", "format",
    "bits", "channels", "to", "inline", "name", "folder", "preview", "by",
)  # fmt: skip
"""Keys of other requests that don't apply to flows, which have no file, no end and no variations."""

FIRST_SEGMENT_KEYS = ("gain", "pan", "speed", "out", "at")
"""Playback keys, which apply from the first segment of a plan."""


@dataclass(frozen=True)
class PlannedSegment:
    """A segment to be rendered.

    Attributes:
        parameters: What to render.
        handover: The crossfade into the next segment.
        duration_s: Seconds from its beginning to that of the next one.
    """

    parameters: Parameters
    handover: Handover
    duration_s: float


@dataclass(frozen=True)
class FlowPlan:
    """A request for a flow, resolved for one model.

    Attributes:
        request: The request.
        card: The model's card.
        seed: Seed of the first segment.
        began: Moment at which the plan began, in seconds of any clock.
        mix_before: The `mix` at that moment, from which it moves to the requested one.
        files: The files that each segment reads.
        init_seconds: Length of the init audio.
        loras: The LoRAs that the request names.

    Raises:
        BadRequest: A key doesn't apply to flows.
    """

    request: m.Flow
    card: Card
    seed: int
    began: float
    mix_before: float = 0.0
    files: JobFiles = NO_FILES
    init_seconds: float | None = None
    loras: tuple[LoraUse, ...] = ()

    def __post_init__(self) -> None:
        """Check that all keys apply to flows."""
        for key in UNUSED_KEYS:
            if getattr(self.request, key) is not None:
                raise BadRequest(f"{key}: it does not apply to continuous playback; leave it out")

    def check_embeddings(self, entry: Entry, allowed: AllowedFolders, session: Session) -> JobFiles:
        """Return the plan's files with the file of embeddings, checked against the first segment.

        Raises:
            BadRequest, ForbiddenPath: It can't be used, or has latents, with which all segments would be the same.
        """
        if not self.request.embeddings:
            return self.files
        parameters = self.segment(0, self.began, session, session.rate).parameters
        embeddings = find_embeddings(self.request, parameters, entry, allowed)
        if embeddings is not None and LATENTS in read_header(embeddings.path):
            raise BadRequest(
                "embeddings: with latents in the file all segments of a flow would be the same; leave the latents out"
            )
        return replace(self.files, embeddings=embeddings)

    def mix_at(self, moment: float) -> float:
        """Return `mix` at a moment; it reaches the requested value within `fade` seconds."""
        if self.request.prompt2 is None:
            return 0.0
        target = DEFAULT_MIX if self.request.mix is None else self.request.mix
        if not self.request.fade:
            return target
        share = min(1.0, max(0.0, (moment - self.began) / self.request.fade))
        return self.mix_before + (target - self.mix_before) * share

    def is_moving(self, moment: float) -> bool:
        """Return whether `mix` is still moving at a moment."""
        fade = self.request.fade if self.request.prompt2 is not None else None
        return bool(fade) and moment < self.began + (fade or 0.0)

    @property
    def crossfade(self) -> float | None:
        """Requested seconds of crossfades; with `prompt2`, `fade` is the time of `mix` instead."""
        return None if self.request.prompt2 is not None else self.request.fade

    def continues(self, before: "FlowPlan") -> bool:
        """Return whether this plan only moves `mix`, so that what sounds needn't be replaced."""
        return (
            self.request.prompt == before.request.prompt
            and self.is_moving(self.began)
            and all(getattr(self.request, key) is None for key in FIRST_SEGMENT_KEYS)
        )

    def segment(self, number: int, moment: float, session: Session, rate: int) -> PlannedSegment:
        """Plan a segment.

        While `mix` moves all segments have the same seed, so that the sound changes gradually.

        Args:
            number: Number of the segment in the plan, from 0.
            moment: Moment at which it begins, of the clock of `began`.
            session: The session's sample rate, tempo and bars.
            rate: Sample rate of the device in Hz.

        Raises:
            BadRequest: The model can't render it.
        """
        keys = {key: getattr(self.request, key) for key in Recipe.__struct_fields__ if key not in FIRST_SEGMENT_KEYS}
        seed = self.seed if self.is_moving(moment) else (self.seed + number) % 2**31
        mix = self.mix_at(moment) if self.request.prompt2 is not None else self.request.mix
        keys.update(seed=seed, mix=mix, rate=rate, to="none", inline=True, rank=False)
        if not any(keys[key] is not None for key in ("seconds", "bars", "init")):
            keys["seconds"] = min(self.card.max_seconds, max(self.card.default_seconds, MIN_DEFAULT_SECONDS))
        keys.update(voice=None, fade=None, priority=self.request.priority or "live")
        request = m.Generate(id="flow", prompt=self.request.prompt, **keys)
        whole = resolve(request, self.card, session, seed, None, self.init_seconds, loras=self.loras)
        crossfade = min(DEFAULT_CROSSFADE_S if self.crossfade is None else self.crossfade, whole.seconds / 2)
        if whole.bars is None:
            overlap = max(MIN_CROSSFADE_S, crossfade)
            return PlannedSegment(whole, Handover(overlap=overlap), whole.seconds - overlap)
        return self._segment_of_bars(request, whole, crossfade, session)

    def _segment_of_bars(
        self, request: m.Generate, whole: Parameters, crossfade: float, session: Session
    ) -> PlannedSegment:
        """Plan a segment that lasts whole bars until the next one begins, and then the crossfade."""
        longest = self.card.max_seconds if self.init_seconds is None else min(self.card.max_seconds, self.init_seconds)
        overlap = min(max(MIN_CROSSFADE_S, crossfade), longest - whole.seconds)
        if overlap < MIN_CROSSFADE_S:
            raise BadRequest(
                f"bars: {whole.bars:g} bars last {whole.seconds:.4g} s, and with a crossfade that is more than the "
                f"{longest:g} s there are; ask for fewer"
            )
        longer = msgspec.structs.replace(
            request,
            **{"seconds": whole.seconds + overlap, "bars": None, "beats_per_bar": None},
            **{"bpm": whole.bpm, "in_words": whole.in_words},
        )
        parameters = resolve(longer, self.card, session, whole.seed, None, self.init_seconds, loras=self.loras)
        on_the_grid = (whole.bpm, whole.beats_per_bar) == (session.tempo, session.beats_per_bar)
        return PlannedSegment(
            parameters, Handover(overlap=overlap, beats=whole.beats if on_the_grid else None), whole.seconds
        )


def mix_so_far(request: m.Flow, before: FlowPlan | None, moment: float) -> float:
    """Return the `mix` of a new plan at which the current sound stands."""
    if before is None:
        return 0.0
    old = before.request
    if (request.prompt, request.prompt2) == (old.prompt2, old.prompt):
        return 1.0 - before.mix_at(moment)
    if request.prompt == old.prompt and request.prompt2 == old.prompt2:
        return before.mix_at(moment)
    return 0.0


def entry_after(before: str | None) -> str | None:
    """Return the default `at` of a plan of whole bars that replaces another: its beat or bar if that began on one.

    >>> entry_after("bar"), entry_after("17"), entry_after("beat"), entry_after("now"), entry_after(None)
    ('bar', 'bar', 'beat', None, None)
    """
    if before in (None, "now"):
        return None
    return "beat" if before == "beat" else "bar"
