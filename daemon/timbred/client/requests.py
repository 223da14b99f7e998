"""Every request as a method, with its keys as typed keyword arguments.

Written by `python -m timbred.client.generate_requests` from the declared messages; don't edit it.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from timbred.client.sound import Sound
from timbred.protocol import messages as m

Result = TypeVar("Result")


class KeysOfPlaying(TypedDict, total=False):
    """Keys of playback."""

    gain: float
    """dB: a number from -120 to 24; default 0."""
    pan: float
    """left -1 to right 1: a number from -1 to 1; default 0."""
    speed: float
    """playback speed, 1 is as recorded: a number from 0.05 to 20; default 1."""
    out: int
    """first output channel: a whole number from 1 to 256; default 1."""
    at: str
    """`now`, `beat`, `bar` or a number of beats: text of at most 40 characters; default now."""
    fade: float
    """seconds of fade or crossfade: a number from 0 to 60."""


class KeysOfSound(KeysOfPlaying, total=False):
    """Keys of a sound."""

    model: str
    """a name from `models`: text of at most 200 characters; default `models.default`."""
    seconds: float
    """length in seconds: a number from 0.05 to 600; default the model's."""
    bars: float
    """length in bars of the session's tempo: a number from 0.0625 to 256."""
    bpm: float
    """tempo that `bars` are counted in: a number from 20 to 999; default `tempo`."""
    beats_per_bar: float
    """meter that `bars` are counted in: a number from 1 to 32; default 4."""
    negative: str
    """what not to hear, in words: text of at most 2000 characters; default the model's."""
    steps: int
    """denoising steps: a whole number from 1 to 1000; default the model's."""
    guidance: float
    """how strictly the prompt rules: a number from 0 to 50; default the model's."""
    eta: float
    """noise added in `ddim` steps: a number from 0 to 1; default 0."""
    scheduler: Literal["ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc"]
    """how noise is taken away: one of ddim, dpm++2m, dpm++2m-karras, euler, euler-a, heun, lms, pndm, unipc; default
    the model's.
    """
    seed: int
    """same seed, same sound: a whole number from 0 to 2147483647; default random, and reported."""
    exact: bool
    """each take made alone with deterministic kernels: 0 or 1; default 0."""
    takes: int
    """variations from one request: a whole number from 1 to 16; default 1."""
    rank: bool
    """best first, by likeness to the prompt: 0 or 1; default 1 where the model can."""
    init: str
    """sound to start from: take id or path: text of at most 4096 characters."""
    strength: float
    """how far `init` may be changed: a number from 0 to 1."""
    start: float
    """repaint `init` from here, seconds: a number from 0 to 600."""
    end: float
    """repaint `init` up to here, seconds: a number from 0 to 600."""
    low: float
    """repaint `init` above this, Hz: a number from 0 to 96000."""
    high: float
    """repaint `init` below this, Hz: a number from 0 to 96000."""
    extend: float
    """seconds to add after `init`, which stays as it is: a number from 0.05 to 600."""
    prompt2: str
    """a second prompt to mix towards: text of at most 2000 characters."""
    mix: float
    """how far towards `prompt2`: a number from 0 to 1; default 0.5."""
    weights: str
    """weights of words, as `word:1.4 word:0.6`: text of at most 2000 characters."""
    noise: str
    """take id whose starting noise is reused: text of at most 64 characters."""
    transcription: str
    """what is said, for models that speak: text of at most 2000 characters."""
    loop: bool
    """the end meets the start without a seam: 0 or 1; default 0."""
    rate: int
    """Hz of the file: a whole number from 8000 to 192000; default `audio.rate`; `init`'s if it stays."""
    format: Literal["aiff", "flac", "ogg", "wav"]
    """kind of file: one of aiff, flac, ogg, wav; default wav; `init`'s if it stays."""
    bits: Literal[16, 24, 32]
    """bits of a sample; 32 is float: one of 16, 24, 32; default 24; `init`'s if it stays."""
    channels: Literal[1, 2]
    """channels of the file: one of 1, 2; default the model's; `init`'s if it stays."""
    loudness: float | Literal["off"]
    """LUFS (BS.1770) to normalise to: a number from -70 to 0 or off; default off."""
    peak: float | Literal["off"]
    """dBFS to normalise the peak to: a number from -60 to 0 or off; default -1; none where `init` stays."""
    trim: bool
    """cut silence at both ends: 0 or 1; default 0."""
    fade_in: float
    """seconds of fade at the start: a number from 0 to 60; default 0.002 at most, against a click; shorter or none
    where it would soften the attack.
    """
    fade_out: float
    """seconds of fade at the end: a number from 0 to 60; default 0.01 at most; shorter where the sound ends with its
    peak.
    """
    to: Literal["both", "file", "none", "play"]
    """where the sound goes: one of both, file, none, play; default file."""
    name: str
    """a slug for the file: text of at most 120 characters; default the prompt."""
    folder: str
    """a folder inside the takes folder: text of at most 120 characters."""
    priority: Literal["background", "live", "normal"]
    """who goes first when the engine is busy: one of background, live, normal; default normal."""
    preview: bool
    """an early, rough rendering while it is denoising: 0 or 1; default 0."""
    by: str
    """a deadline, `bar 33` or seconds from now: as many steps as fit: text of at most 40 characters."""


class GenerateKeys(KeysOfSound, total=False):
    """Keys of `generate`."""

    voice: int
    """the voice to play on, with `to play` or `both`; else a free one: a whole number from 1 to 64."""
    scsynth: int
    """UDP port of the scsynth that reads the take by itself (OSC): a whole number from 1 to 65535."""
    buffer: int
    """number of the buffer for the first take, with `scsynth`: a whole number from 0 to 1000000."""


class VaryKeys(KeysOfSound, total=False):
    """Keys of `vary`."""

    voice: int
    """the voice to play on, with `to play` or `both`; else a free one: a whole number from 1 to 64."""
    scsynth: int
    """UDP port of the scsynth that reads the take by itself (OSC): a whole number from 1 to 65535."""
    buffer: int
    """number of the buffer for the first take, with `scsynth`: a whole number from 0 to 1000000."""


class TakesKeys(TypedDict, total=False):
    """Keys of `takes`."""

    search: str
    """words that the prompt has: text of at most 2000 characters."""
    like: str
    """take id to look for similar ones: text of at most 64 characters."""
    limit: int
    """at most so many: a whole number from 1 to 1000; default 20."""


class PlayKeys(KeysOfPlaying, total=False):
    """Keys of `play`."""

    loop: bool
    """around and around: 0 or 1; default 0."""


class StopKeys(TypedDict, total=False):
    """Keys of `stop`."""

    at: str
    """`now`, `beat`, `bar` or a number of beats: text of at most 40 characters."""
    fade: float
    """seconds of fade: a number from 0 to 60."""


class SetKeys(TypedDict, total=False):
    """Keys of `set`."""

    gain: float
    """dB: a number from -120 to 24."""
    pan: float
    """left -1 to right 1: a number from -1 to 1."""
    speed: float
    """playback speed: a number from 0.05 to 20."""
    fade: float
    """seconds to get there: a number from 0 to 60."""


class FlowKeys(KeysOfSound, total=False):
    """Keys of `flow`."""


class AsyncRequests(ABC):
    """Methods for all requests, for asyncio."""

    @abstractmethod
    def request(self, name: str, /, **values: Any) -> m.Request:
        """Build a request from its name on the wire and its keys."""

    @abstractmethod
    def ask(self, request: m.Request) -> AsyncGenerator[m.Event | Sound]:
        """Send a request and yield its events."""

    @abstractmethod
    async def _one(self, request: m.Request) -> Any: ...

    @abstractmethod
    async def _list(self, request: m.Request) -> list[Any]: ...

    @abstractmethod
    async def _sound(self, request: m.Request) -> Sound: ...

    async def generate(self, prompt: str, **keys: Unpack[GenerateKeys]) -> Sound:
        """Makes a sound from words."""
        return await self._sound(self.request("generate", prompt=prompt, **keys))

    def generate_events(self, prompt: str, **keys: Unpack[GenerateKeys]) -> AsyncGenerator[m.Event | Sound]:
        """Yield the events of `generate`. Leaving before the end cancels it."""
        return self.ask(self.request("generate", prompt=prompt, **keys))

    async def vary(self, take: str, prompt: str | None = None, **keys: Unpack[VaryKeys]) -> Sound:
        """Makes a sound from a stored take's recipe, with what is named changed."""
        return await self._sound(self.request("vary", take=take, prompt=prompt, **keys))

    def vary_events(
        self, take: str, prompt: str | None = None, **keys: Unpack[VaryKeys]
    ) -> AsyncGenerator[m.Event | Sound]:
        """Yield the events of `vary`. Leaving before the end cancels it."""
        return self.ask(self.request("vary", take=take, prompt=prompt, **keys))

    async def status(self) -> m.StatusReply:
        """Asks how the daemon is."""
        return await self._one(self.request("status"))

    async def models(self) -> list[m.Model]:
        """Asks for the models there are."""
        return await self._list(self.request("models"))

    async def load(self, model: str) -> m.Loaded:
        """Makes a model resident."""
        return await self._one(self.request("load", model=model))

    async def unload(self, model: str) -> m.Unloaded:
        """Frees a model's memory."""
        return await self._one(self.request("unload", model=model))

    async def takes(self, **keys: Unpack[TakesKeys]) -> list[m.Take]:
        """Looks through the stored takes, newest first."""
        return await self._list(self.request("takes", **keys))

    async def play(self, voice: int, take: str, **keys: Unpack[PlayKeys]) -> m.Playing:
        """Plays a take or a file on a voice."""
        return await self._one(self.request("play", voice=voice, take=take, **keys))

    async def stop(self, voice: int | Literal["*"], **keys: Unpack[StopKeys]) -> m.Ended | None:
        """Ends a voice; `*` ends all."""
        return await self._one(self.request("stop", voice=voice, **keys))

    async def set(self, voice: int, **keys: Unpack[SetKeys]) -> None:
        """Changes a sounding voice."""
        return await self._one(self.request("set", voice=voice, **keys))

    async def flow(self, voice: int, prompt: str, **keys: Unpack[FlowKeys]) -> m.Flowing:
        """Starts continuous playback on a voice, rendered segment by segment, or changes its parameters.

        `fade` is the duration of the crossfade between segments (1 s by default); with `prompt2`, the duration in which
        `mix` reaches its value. `stop` ends it.
        """
        return await self._one(self.request("flow", voice=voice, prompt=prompt, **keys))

    async def tempo(self, bpm: float) -> None:
        """Sets the session's tempo while Link is off."""
        return await self._one(self.request("tempo", bpm=bpm))

    async def setting(self, name: str, value: str | int | float | bool | None = None) -> m.SettingNow:
        """Reads a setting or, with a value, changes it while the daemon runs. NAME is part of the address."""
        return await self._one(self.request(f"settings/{name}", value=value))

    async def ping(self) -> m.Pong:
        """Asks whether the daemon is there."""
        return await self._one(self.request("ping"))


class PlainRequests(ABC):
    """Methods for all requests; each call blocks until it is answered."""

    @property
    @abstractmethod
    def timbred(self) -> AsyncRequests:
        """The asynchronous client."""

    @abstractmethod
    def _run(self, work: Coroutine[Any, Any, Result]) -> Result: ...

    @abstractmethod
    def _each(self, events: AsyncGenerator[Result]) -> Generator[Result]: ...

    def generate(self, prompt: str, **keys: Unpack[GenerateKeys]) -> Sound:
        """Makes a sound from words."""
        return self._run(self.timbred.generate(prompt, **keys))

    def generate_events(self, prompt: str, **keys: Unpack[GenerateKeys]) -> Generator[m.Event | Sound]:
        """Yield the events of `generate`. Leaving before the end cancels it."""
        return self._each(self.timbred.generate_events(prompt, **keys))

    def vary(self, take: str, prompt: str | None = None, **keys: Unpack[VaryKeys]) -> Sound:
        """Makes a sound from a stored take's recipe, with what is named changed."""
        return self._run(self.timbred.vary(take, prompt, **keys))

    def vary_events(self, take: str, prompt: str | None = None, **keys: Unpack[VaryKeys]) -> Generator[m.Event | Sound]:
        """Yield the events of `vary`. Leaving before the end cancels it."""
        return self._each(self.timbred.vary_events(take, prompt, **keys))

    def status(self) -> m.StatusReply:
        """Asks how the daemon is."""
        return self._run(self.timbred.status())

    def models(self) -> list[m.Model]:
        """Asks for the models there are."""
        return self._run(self.timbred.models())

    def load(self, model: str) -> m.Loaded:
        """Makes a model resident."""
        return self._run(self.timbred.load(model))

    def unload(self, model: str) -> m.Unloaded:
        """Frees a model's memory."""
        return self._run(self.timbred.unload(model))

    def takes(self, **keys: Unpack[TakesKeys]) -> list[m.Take]:
        """Looks through the stored takes, newest first."""
        return self._run(self.timbred.takes(**keys))

    def play(self, voice: int, take: str, **keys: Unpack[PlayKeys]) -> m.Playing:
        """Plays a take or a file on a voice."""
        return self._run(self.timbred.play(voice, take, **keys))

    def stop(self, voice: int | Literal["*"], **keys: Unpack[StopKeys]) -> m.Ended | None:
        """Ends a voice; `*` ends all."""
        return self._run(self.timbred.stop(voice, **keys))

    def set(self, voice: int, **keys: Unpack[SetKeys]) -> None:
        """Changes a sounding voice."""
        return self._run(self.timbred.set(voice, **keys))

    def flow(self, voice: int, prompt: str, **keys: Unpack[FlowKeys]) -> m.Flowing:
        """Starts continuous playback on a voice, rendered segment by segment, or changes its parameters.

        `fade` is the duration of the crossfade between segments (1 s by default); with `prompt2`, the duration in which
        `mix` reaches its value. `stop` ends it.
        """
        return self._run(self.timbred.flow(voice, prompt, **keys))

    def tempo(self, bpm: float) -> None:
        """Sets the session's tempo while Link is off."""
        return self._run(self.timbred.tempo(bpm))

    def setting(self, name: str, value: str | int | float | bool | None = None) -> m.SettingNow:
        """Reads a setting or, with a value, changes it while the daemon runs. NAME is part of the address."""
        return self._run(self.timbred.setting(name, value))

    def ping(self) -> m.Pong:
        """Asks whether the daemon is there."""
        return self._run(self.timbred.ping())
