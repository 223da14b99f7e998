"""Messages between the daemon and an engine process, MessagePack over one pair of sockets, and the engine's end of it.

A message is one frame; `JobRendered` is followed by one frame for each take, `PreviewRendered` and `PieceRendered` by
one: float32 little-endian samples. The engine's end has a separate thread, so that heartbeats and cancellations are
handled while a model computes. The daemon's end is `timbred.ipc.engine_client`.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

WIRE_VERSION = 15
"""Increased whenever a message changes; a daemon refuses an engine of another version."""

ENGINE_HEARTBEAT_INTERVAL_S = 1.0
"""Longest interval between heartbeats of an engine, in seconds."""


class EngineMessage(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of all messages."""


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and the folder of its files."""

    name: str
    folder: str


class PromptInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Input of the text encoders.

    `mix` is the position between `prompt` and `prompt2`, 0 to 1; `weights` are the weights of words in `prompt`.
    `lyrics` in a `language`, tempo (`bpm`, 0 for none), `key`, `signature`, `task` and `track` are for models that read
    them. The engine fills in the following for models that read them: the length of the sound, an instruction in place
    of the task's, and the tokens that are read of the prompt and of the lyrics, 0 for the usual ones.
    """

    prompt: str
    negative: str = ""
    transcription: str = ""
    prompt2: str = ""
    mix: float = 0.0
    weights: tuple[tuple[str, float], ...] = ()
    lyrics: str = ""
    language: str = "en"
    bpm: float = 0.0
    key: str = ""
    signature: str = ""
    task: str = ""
    track: str = ""
    seconds: float = 0.0
    instruction: str = ""
    text_tokens: int = 0
    lyric_tokens: int = 0

    def texts(self) -> dict[str, str]:
        """Return the texts that are not empty, by their keys in `generate`."""
        keys = ("prompt", "negative", "prompt2", "transcription")
        return {key: text for key in keys if (text := getattr(self, key))}


class NoiseSource(msgspec.Struct, frozen=True, kw_only=True):
    """Starting noise of an earlier take: seed, rendered length in seconds, and True for a loop."""

    seed: int
    seconds: float
    loop: bool = False


class Repaint(msgspec.Struct, frozen=True, kw_only=True):
    """A region of the init audio that is regenerated, in seconds and Hz."""

    start: float
    end: float
    low: float
    high: float


class InitAudio(msgspec.Struct, frozen=True, kw_only=True):
    """Init audio: float32 little-endian samples, interleaved, at the model's native rate and channels.

    `strength` is the fraction of the steps that is run, 0 to 1; with `repaint` only these regions, which don't overlap,
    are regenerated.
    """

    samples: bytes
    channels: int = 1
    strength: float
    repaint: tuple[Repaint, ...] = ()


class GivenTensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor for an input of the pipeline, named as there: float32 little-endian values."""

    name: str
    shape: tuple[int, ...]
    values: bytes


class LoraUse(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA of a request: its name, its file, the SHA-256 of the tensors in it, and its weight."""

    name: str
    path: str
    hash: str
    weight: float


class RenderOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of one generation.

    `seconds` is the length at the model's native rate; `seeds` has one seed for each take. `is_streamed` requests
    `PieceRendered` messages while the rest of the sound is still rendered, `embed_takes` the embeddings of the takes,
    `loop` a sound that repeats without a gap. With a `window` in seconds, `init_audio` is continued up to the length in
    windows of at most that size.
    `tensors` replace texts and noise that the engine would otherwise encode and draw.
    """

    inputs: PromptInputs
    seconds: float
    steps: int
    guidance: float
    eta: float
    scheduler: str
    seeds: tuple[int, ...]
    exact: bool = False
    rank: bool = False
    embed_takes: bool = False
    noise: NoiseSource | None = None
    init_audio: InitAudio | None = None
    reference: InitAudio | None = None
    preview: bool = False
    is_streamed: bool = False
    loop: bool = False
    window: float = 0.0
    tensors: tuple[GivenTensor, ...] = ()
    loras: tuple[LoraUse, ...] = ()


class LoadModel(EngineMessage, frozen=True, kw_only=True):
    """To the engine: make a model resident."""

    model: ModelSource


class UnloadModel(EngineMessage, frozen=True, kw_only=True):
    """To the engine: free a model."""

    name: str


class RenderJob(EngineMessage, frozen=True, kw_only=True):
    """To the engine: render a job.

    The model is loaded first if it isn't resident. `rank` is 0 for live, 1 for normal, 2 for background: jobs of a
    lower rank take their steps first. `within` is a deadline in seconds: other jobs wait once there is no time to
    spare. `clap` is the installed component that compares takes.
    """

    job: int
    model: ModelSource
    order: RenderOrder
    rank: int = 1
    within: float | None = None
    clap: ModelSource | None = None


class CancelJob(EngineMessage, frozen=True, kw_only=True):
    """To the engine: stop a job at its next step."""

    job: int


class SetYield(EngineMessage, frozen=True, kw_only=True):
    """To the engine: pause after each step for a render loop of `frame_rate` frames a second; 0 never pauses."""

    frame_rate: float


class QuitEngine(EngineMessage, frozen=True, kw_only=True):
    """To the engine: end the process."""


class EngineReady(EngineMessage, frozen=True, kw_only=True):
    """From the engine, as its first message: its identity, version and device.

    `model_memory` is the memory in bytes that its models may use, 0 if unknown. `node` is the machine that it runs on,
    empty for the daemon's.
    """

    token: str
    wire_version: int
    version: str
    pid: int
    device: str
    device_name: str
    precision: str
    model_memory: int = 0
    node: str = ""


class EngineCannotStart(EngineMessage, frozen=True, kw_only=True):
    """From the engine, instead of `EngineReady` or later, before it exits; `message` has the reason and the remedy."""

    token: str
    message: str


class ResidentModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory; with `lends_clap`, its CLAP compares the takes of other models too."""

    name: str
    memory: int
    lends_clap: bool = False


class EngineHeartbeat(EngineMessage, frozen=True, kw_only=True):
    """From the engine, at a fixed interval: the state of its device and the resident models; memory in bytes."""

    memory_used: int
    memory_total: int
    resident: tuple[ResidentModel, ...]


class ModelLoading(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the job waits for its model, of which this `fraction` of components is loaded."""

    job: int
    fraction: float


class TextRead(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the encoding of a text that is longer than the encoder's window.

    `key` is the text's key in `generate`. Of its `characters`, `read` were encoded, in `parts` parts.
    """

    job: int
    key: str
    characters: int
    read: int
    parts: int


class ModelLoaded(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the model is resident."""

    model: ResidentModel


class ModelUnloaded(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the model was unloaded."""

    name: str


class StepDone(EngineMessage, frozen=True, kw_only=True):
    """From the engine: a denoising step is done. `remaining` is in seconds, from measured times."""

    job: int
    step: int
    steps: int
    remaining: float


class PreviewRendered(EngineMessage, frozen=True, kw_only=True):
    """From the engine: a preview of the first take; one frame of samples follows.

    `first` is as in `JobRendered`; for an extension, it is the part rendered so far.
    """

    job: int
    rate: int
    channels: int
    first: int = 0


class PieceRendered(EngineMessage, frozen=True, kw_only=True):
    """From the engine, before `JobRendered`: a finished part of the sound; one frame of samples follows.

    Pieces arrive in order and without gaps from frame 0 on. `first` is the piece's first frame, `frames` the length of
    the whole sound, `last` is True for the last piece. `peak` is the estimated peak of the whole sound.
    """

    job: int
    rate: int
    channels: int
    first: int
    frames: int
    peak: float
    last: bool


class JobRendered(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the rendered takes; one frame of samples, shape (frames, channels), follows for each.

    Ranked takes are ordered best first: `seeds`, `scores` and `looped` are in the order of the frames; `scores` is
    empty without ranking. Takes with `looped` are loops of the requested length, and the rest of their samples repeats
    their beginning; other takes of a loop continue beyond their end. `knows` is how much of the prompt the model knows,
    0 to 1. `first` is the frame of the whole at which the
    takes begin: for outpainting shortly before the end of the init audio.
    """

    job: int
    rate: int
    channels: int
    first: int = 0
    seeds: tuple[int, ...]
    scores: tuple[float, ...] = ()
    looped: tuple[bool, ...] = ()
    knows: float | None = None


class EmbeddingsReady(EngineMessage, frozen=True, kw_only=True):
    """From the engine, after `JobRendered`, if the order set `embed_takes`: the takes' embeddings.

    One frame, float32, of norm 1, follows for each take, in the order of `JobRendered`; only embeddings of the same
    `ear` can be compared. `ear` is empty, and no frame follows, if it failed.
    """

    job: int
    ear: str


class JobCancelled(EngineMessage, frozen=True, kw_only=True):
    """From the engine: the job was cancelled."""

    job: int


class JobFailed(EngineMessage, frozen=True, kw_only=True):
    """From the engine: a job, a load or an unload failed."""

    code: str
    message: str
    job: int | None = None
    model: str | None = None


ToEngine = LoadModel | UnloadModel | RenderJob | CancelJob | SetYield | QuitEngine
FromEngine = (
    EngineReady
    | EngineCannotStart
    | EngineHeartbeat
    | ModelLoading
    | TextRead
    | ModelLoaded
    | ModelUnloaded
    | StepDone
    | PreviewRendered
    | PieceRendered
    | JobRendered
    | EmbeddingsReady
    | JobCancelled
    | JobFailed
)

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def encode(message: EngineMessage) -> bytes:
    """Encode a message."""
    return _encoder.encode(message)


def read_in_engine(frame: bytes) -> ToEngine:
    """Decode a message from the daemon."""
    return _to_engine.decode(frame)


def read_in_daemon(frame: bytes) -> FromEngine:
    """Decode a message from an engine."""
    return _from_engine.decode(frame)


_OUTGOING_ADDRESS = "inproc://outgoing"


class DaemonLink:
    """Receives messages into `inbox`, and sends those passed to `send`; cancellations take effect immediately.

    The engine's own threads put their messages into `inbox` too: it is the only queue that the scheduler waits on.

    Args:
        address: ZeroMQ address of the daemon's socket.
        heartbeat_s: Interval between heartbeats in seconds.
        make_heartbeat: Returns the heartbeat; called in the link's thread.
    """

    def __init__(self, address: str, heartbeat_s: float, make_heartbeat: Callable[[], EngineHeartbeat]) -> None:
        self.inbox: queue.Queue[Any] = queue.Queue()
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._heartbeat_s = heartbeat_s
        self._make_heartbeat = make_heartbeat
        self._context = zmq.Context()
        self._outgoing = self._context.socket(zmq.PAIR)
        self._outgoing.bind(_OUTGOING_ADDRESS)
        self._address = address
        self._thread = threading.Thread(target=self._run, name="daemon-link", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: EngineMessage, *payload: bytes | memoryview) -> None:
        """Send a message with its payload frames; for the scheduler's thread only."""
        self._outgoing.send_multipart([encode(message), *payload], copy=not payload)

    def is_cancelled(self, job: int) -> bool:
        """Tell if the daemon has cancelled a job."""
        with self._lock:
            return job in self._cancelled

    def forget(self, job: int) -> None:
        """Forget the cancellation of a job that has ended."""
        with self._lock:
            self._cancelled.discard(job)

    def close(self) -> None:
        """Send what is queued, then end the thread."""
        self._outgoing.send(b"")
        self._thread.join()
        self._outgoing.close()
        self._context.term()

    def _run(self) -> None:
        daemon_socket = self._context.socket(zmq.PAIR)
        daemon_socket.linger = 1000
        daemon_socket.connect(self._address)
        outgoing_socket = self._context.socket(zmq.PAIR)
        outgoing_socket.connect(_OUTGOING_ADDRESS)
        poller = zmq.Poller()
        poller.register(daemon_socket, zmq.POLLIN)
        poller.register(outgoing_socket, zmq.POLLIN)
        is_open, next_heartbeat_at = True, time.monotonic() + self._heartbeat_s
        while is_open:
            ready = dict(poller.poll(max(0, math.ceil(1000 * (next_heartbeat_at - time.monotonic())))))
            if outgoing_socket in ready:
                frames = outgoing_socket.recv_multipart(copy=False)
                is_open = len(frames[0]) > 0
                if is_open:
                    daemon_socket.send_multipart(frames, copy=False)
            if daemon_socket in ready:
                self._receive(read_in_engine(daemon_socket.recv()))
            if time.monotonic() >= next_heartbeat_at:
                daemon_socket.send(encode(self._make_heartbeat()))
                next_heartbeat_at = time.monotonic() + self._heartbeat_s
        outgoing_socket.close()
        daemon_socket.close()

    def _receive(self, message: ToEngine) -> None:
        if isinstance(message, CancelJob):
            with self._lock:
                self._cancelled.add(message.job)
        else:
            self.inbox.put(message)
