"""Messages between the daemon and the player process: MessagePack over one pair of sockets.

A message is one frame; `PlayVoice`, `AppendSamples` and `ReplaceSamples` are followed by one frame of samples: float32
little-endian, interleaved. Frames of the device are counted from its opening. Voices are 1 to 64.
"""

from typing import Literal

import msgspec

WIRE_VERSION = 4
"""Increased whenever a message changes; a daemon refuses a player of another version."""


class PlayerMessage(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of all messages."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A start time: immediately, on the next beat or bar, or on a beat by its number."""

    kind: Literal["now", "beat", "bar", "number"] = "now"
    number: float = 0.0


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Transition from a flow's segment to the next, or to its own repetition.

    The crossfade of `overlap` seconds ends with the segment, or starts `beats` after the segment's start if that is
    sooner.
    """

    overlap: float
    beats: float | None = None


class PlayVoice(PlayerMessage, frozen=True, kw_only=True):
    """To the player: play a sound on a voice. `play` is the daemon's number for it.

    `rate` is the sound's at speed 1, in Hz; `gain` in dB; `fade` in seconds, None for the default; `out` the first
    output channel, from 1; `position` the start position in frames of the sound. A segment of a flow has a `handover`;
    one that `follows` starts at the handover of the segment before it on this voice, regardless of `at`, with that
    segment's gain, pan and speed. For a sound that is still being rendered these are the first samples; it has `whole`
    frames, and `AppendSamples` sends the others.
    """

    play: int
    voice: int
    rate: float
    channels: int
    at: Moment = Moment()
    loop: bool = False
    gain: float = 0.0
    pan: float = 0.0
    speed: float = 1.0
    out: int = 1
    fade: float | None = None
    position: float = 0.0
    handover: Handover | None = None
    follows: bool = False
    whole: int | None = None


class AppendSamples(PlayerMessage, frozen=True, kw_only=True):
    """To the player: the next samples of a sound that is still being rendered follow in one frame."""

    play: int


class ReplaceSamples(PlayerMessage, frozen=True, kw_only=True):
    """To the player: the same sound, resampled for another speed, follows in one frame; `rate` as in `PlayVoice`."""

    play: int
    rate: float


class EndStream(PlayerMessage, frozen=True, kw_only=True):
    """To the player: end a sound of which no more samples follow."""

    play: int


class StopVoice(PlayerMessage, frozen=True, kw_only=True):
    """To the player: end a voice, or all with `voice` 0. `stop` is the daemon's number for it."""

    stop: int
    voice: int
    at: Moment = Moment()
    fade: float | None = None


class ChangeVoice(PlayerMessage, frozen=True, kw_only=True):
    """To the player: change a voice; None leaves a value unchanged. `fade` in seconds."""

    voice: int
    gain: float | None = None
    pan: float | None = None
    speed: float | None = None
    fade: float | None = None


class SetTempo(PlayerMessage, frozen=True, kw_only=True):
    """To the player: the session's tempo and meter, and after a restart the current `beat`."""

    bpm: float
    beats_per_bar: float
    beat: float | None = None


class SetLevel(PlayerMessage, frozen=True, kw_only=True):
    """To the player: the gain of the sum of all voices, in dB."""

    gain: float


class QuitPlayer(PlayerMessage, frozen=True, kw_only=True):
    """To the player: end the process."""


class PlayerReady(PlayerMessage, frozen=True, kw_only=True):
    """From the player, as its first message: its identity and version."""

    token: str
    wire_version: int
    version: str
    pid: int


class PlayerCannotStart(PlayerMessage, frozen=True, kw_only=True):
    """From the player, instead of `PlayerReady`, before it exits; `message` has the reason and the remedy."""

    token: str
    message: str


class DeviceOpened(PlayerMessage, frozen=True, kw_only=True):
    """From the player: a device is open. `rate` in Hz, `latency` and `lead` in seconds, `block` in frames."""

    device: str
    rate: int
    channels: int
    block: int
    latency: float
    lead: float
    raised: bool


class DeviceUnavailable(PlayerMessage, frozen=True, kw_only=True):
    """From the player: no device can be opened; `reason` includes the remedy."""

    reason: str


class VoicePlaying(PlayerMessage, frozen=True, kw_only=True):
    """From the player: the sound starts at this frame of the device, on this beat.

    `repeated`: the segment is repeated because the next one isn't available yet.
    """

    play: int
    frame: int
    beat: float
    repeated: bool = False


class VoiceEnded(PlayerMessage, frozen=True, kw_only=True):
    """From the player: the sound's last frame was before this frame of the device."""

    play: int
    frame: int
    reason: Literal["finished", "stopped", "replaced"]


class VoiceStopping(PlayerMessage, frozen=True, kw_only=True):
    """From the player: a stop is carried out on these plays; none if nothing was playing."""

    stop: int
    plays: tuple[int, ...]


class PlayRefused(PlayerMessage, frozen=True, kw_only=True):
    """From the player: a play or stop failed."""

    code: str
    message: str
    play: int | None = None
    stop: int | None = None


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Position of an active play, in frames of its sound, and its current values (gain in dB)."""

    play: int
    position: float
    gain: float
    pan: float
    speed: float


class PlayerHeartbeat(PlayerMessage, frozen=True, kw_only=True):
    """From the player at a fixed interval: a heartbeat with all positions.

    `peers` is the number of Link peers, `underruns` the number of blocks that weren't mixed in time, `late` the number
    of blocks that the driver reported as late; `lead` is the time mixed ahead, in seconds, 0 without a device.
    """

    frame: int
    beat: float
    bpm: float
    peers: int
    underruns: int
    late: int = 0
    lead: float = 0.0
    positions: tuple[Position, ...] = ()


class DeviceLost(PlayerMessage, frozen=True, kw_only=True):
    """From the player, as its last message: the device is lost.

    A new process waits for its return, because a driver that lost its device may fail to open it again in the same
    process.
    """

    reason: str
    last: PlayerHeartbeat


ToPlayer = (
    PlayVoice | AppendSamples | ReplaceSamples | EndStream | StopVoice | ChangeVoice | SetTempo | SetLevel | QuitPlayer
)
FromPlayer = (
    PlayerReady
    | PlayerCannotStart
    | DeviceOpened
    | DeviceUnavailable
    | VoicePlaying
    | VoiceEnded
    | VoiceStopping
    | PlayRefused
    | PlayerHeartbeat
    | DeviceLost
)

_encoder = msgspec.msgpack.Encoder()
_to_player: msgspec.msgpack.Decoder[ToPlayer] = msgspec.msgpack.Decoder(ToPlayer)
_from_player: msgspec.msgpack.Decoder[FromPlayer] = msgspec.msgpack.Decoder(FromPlayer)


def encode(message: PlayerMessage) -> bytes:
    """Encode a message."""
    return _encoder.encode(message)


def read_in_player(frame: bytes) -> ToPlayer:
    """Decode a message from the daemon."""
    return _to_player.decode(frame)


def read_in_daemon(frame: bytes) -> FromPlayer:
    """Decode a message from a player."""
    return _from_player.decode(frame)
