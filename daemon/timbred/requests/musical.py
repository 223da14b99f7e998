"""Resolution of the musical keys of a request, pure.

These are `key`, `bpm`, `signature`, `in_words`, `measure` and `fit`; and for models that make songs `lyrics`,
`language`, `task` and `track`.
"""

from dataclasses import dataclass

import msgspec

from timbred.errors import BadRequest
from timbred.ipc.engine_messages import PromptInputs
from timbred.models.families import Capability
from timbred.models.registry import Card
from timbred.music import musical_words, read_key, read_signature
from timbred.protocol.keys import TRACKS
from timbred.protocol.messages import Generate

MUSICAL_CAPABILITIES: dict[str, Capability] = {"key": "key", "bpm": "bpm", "signature": "bpm"}
"""Musical keys, and the capability of models that read each as a parameter of their own."""


@dataclass(frozen=True)
class RequestedMusic:
    """The music that a request asks for.

    Attributes:
        key: The key as normalized by `read_key`; empty for none.
        bpm: Tempo in beats per minute; with `bars` the session's if none was requested.
        signature: The time signature as normalized by `read_signature`; empty for none.
        beats_per_bar: Beats of a bar in quarter notes, requested or the signature's.
        in_words: True if the model gets in words what it doesn't read otherwise.
        measure: True if tempo, key and downbeat of the takes are measured.
        fit: True if the takes are ordered by how closely they keep to what was asked.
    """

    key: str
    bpm: float | None
    signature: str
    beats_per_bar: float | None
    in_words: bool
    measure: bool
    fit: bool

    def apply(self, inputs: PromptInputs, card: Card) -> PromptInputs:
        """Return a model's inputs with the music: what it reads as parameters, and the rest in words if requested."""

        def reads(name: str) -> bool:
            return MUSICAL_CAPABILITIES[name] in card.capabilities

        words = musical_words(
            "" if reads("key") else self.key,
            None if reads("bpm") else self.bpm,
            "" if reads("signature") else self.signature,
        )
        if not self.in_words:
            words = ""
        return msgspec.structs.replace(
            inputs,
            prompt=_append(inputs.prompt, words),
            prompt2=_append(inputs.prompt2, words),
            key=self.key if reads("key") else "",
            bpm=(self.bpm or 0.0) if reads("bpm") else 0,
            signature=self.signature if reads("signature") else "",
        )


TRACK_TASKS = ("extract", "lego", "complete")
"""Tasks that work on tracks; only the last one takes several."""


@dataclass(frozen=True)
class RequestedSong:
    """Lyrics with their language, the task, and the names of tracks, separated by spaces; empty for none."""

    lyrics: str
    language: str
    task: str
    track: str

    def apply(self, inputs: PromptInputs) -> PromptInputs:
        """Return a model's inputs with the song."""
        language = self.language or inputs.language
        return msgspec.structs.replace(inputs, lyrics=self.lyrics, language=language, task=self.task, track=self.track)


def resolve_song(request: Generate) -> RequestedSong:
    """Resolve the keys of models that make songs.

    Raises:
        BadRequest: A key needs another one, or a track isn't one of `TRACKS`.
    """
    lyrics = (request.lyrics or "").strip()
    if request.language is not None and not lyrics:
        raise BadRequest("language: it goes with lyrics; say what is sung, as in: @lyrics la la la")
    tracks = (request.track or "").split()
    for track in tracks:
        if track not in TRACKS:
            raise BadRequest(f"track: got {track[:40]!r}, allowed are {', '.join(TRACKS)}")
    if tracks and request.task not in TRACK_TASKS:
        raise BadRequest(f"track: it goes with the tasks {', '.join(TRACK_TASKS)}; name one, as in: @task extract")
    if len(tracks) > 1 and request.task != "complete":
        raise BadRequest(f"track: got {len(tracks)}, and {request.task} takes one; several go with the task complete")
    return RequestedSong(
        lyrics=lyrics,
        language=(request.language or "en") if lyrics else "",
        task=request.task or "",
        track=" ".join(dict.fromkeys(tracks)),
    )


def beats_of_bar(beats_per_bar: float | None, signature: str) -> float:
    """Return the beats of a bar in quarter notes: as requested, else the signature's, else 4."""
    if beats_per_bar is not None:
        return beats_per_bar
    return read_signature(signature).beats_per_bar if signature else 4.0


def _append(text: str, words: str) -> str:
    """Return a prompt with words appended; an empty one stays empty."""
    return f"{text}, {words}" if text and words else text


def resolve_music(request: Generate, session_tempo: float) -> RequestedMusic:
    """Resolve the musical keys of a request.

    Args:
        request: The request.
        session_tempo: Tempo of the session in beats per minute.

    Raises:
        BadRequest: A key or signature that there isn't, or keys that contradict each other.
    """
    key = "" if request.key is None else str(read_key(request.key))
    signature = None if request.signature is None else read_signature(request.signature)
    bpm = session_tempo if request.bpm is None and request.bars is not None else request.bpm
    if request.fit and request.measure is False:
        raise BadRequest("measure: got 0, but fit compares what is measured; leave one of the two out")
    if request.fit and not key and bpm is None:
        raise BadRequest("fit: there is nothing to keep to; name @key, @bpm or @bars")
    is_named = any(value is not None for value in (request.key, request.bpm, request.signature))
    beats_per_bar = request.beats_per_bar
    if beats_per_bar is None and signature is not None:
        beats_per_bar = signature.beats_per_bar
    return RequestedMusic(
        key=key,
        bpm=bpm,
        signature="" if signature is None else str(signature),
        beats_per_bar=beats_per_bar,
        in_words=is_named if request.in_words is None else request.in_words,
        measure=bool(request.fit) or (request.bars is not None if request.measure is None else request.measure),
        fit=bool(request.fit),
    )
