"""Every setting once: its name, default, range and help. A Config is frozen; file < environment < flags."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from timbred.errors import BadRequest

Value = str | int | float | bool


@dataclass(frozen=True)
class Setting:
    """One setting. `low` and `high` bound numbers; `choices` bounds words; `live` ones can change while it runs."""

    name: str
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def environment(self) -> str:
        return "TIMBRED_" + self.name.upper().replace(".", "_")

    @property
    def allowed(self) -> str:
        """What may be set, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, bool):
            return "0 or 1"
        if isinstance(self.default, int | float):
            kind = "a whole number" if isinstance(self.default, int) else "a number"
            return f"{kind} from {self.low:g} to {self.high:.10g}"
        return "text"


def _folder(kind: str) -> str:
    return str(getattr(platformdirs, f"user_{kind}_path")("timbred", appauthor=False))


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "host",
        "127.0.0.1",
        "Address that every port is bound to. Beyond loopback anybody there can send requests.",
    ),
    Setting("osc.port", 7770, "Port for OSC over UDP and over TCP; 0 picks a free one.", 0, 65535),
    Setting("zmq.requests", 7771, "Port of the ZeroMQ ROUTER that takes requests; 0 picks a free one.", 0, 65535),
    Setting("zmq.events", 7772, "Port of the ZeroMQ PUB with every event; 0 picks a free one.", 0, 65535),
    Setting("http.port", 7773, "Port for HTTP and WebSocket; 0 picks a free one.", 0, 65535),
    Setting(
        "discovery.announce",
        True,
        "Announce the daemon by zeroconf (mDNS) as `_oscjson._tcp` and `_osc._udp`, where its ports can be reached.",
    ),
    Setting("discovery.name", "timbred", "The name that zeroconf and OSCQuery tell; zeroconf adds an unusual port."),
    Setting("device", "auto", "Where models run: auto, cpu, cuda:0, mps."),
    Setting("device.threads", 0, "CPU threads of the engine at most; 0: one for each core.", 0, 1024),
    Setting("models.default", "pocket", "The model that answers requests which name none.", live=True),
    Setting("models.preload", True, "Load the default model at the start, not at its first request."),
    Setting("models.folder", _folder("data") + os.sep + "models", "Folder for models that were fetched."),
    Setting(
        "takes.folder",
        str(platformdirs.user_music_path() / "timbred"),
        "Folder that every sound is written to.",
    ),
    Setting("files.allowed", "", "More folders that sounds may be read from, divided as in PATH."),
    Setting("library.file", "", "SQLite file that remembers takes; empty: `.timbred.sqlite` in the takes folder."),
    Setting("audio.rate", 48000, "The session's rate in Hz; the device's until it is set.", 8000, 192000, live=True),
    Setting("tempo", 120.0, "Tempo in beats a minute that `bars` are counted in.", 20, 999, live=True),
    Setting("beats_per_bar", 4.0, "Beats in a bar.", 1, 32, live=True),
    Setting("player.device", "", "Sound device to play on, by name or number; empty: the system's."),
    Setting("player.channels", 2, "Output channels to open on the sound device, if it has so many.", 1, 256),
    Setting("player.lead", 10.0, "Milliseconds that sound is mixed ahead of what the device takes.", 1, 500),
    Setting("player.limiter", True, "Keep the sum of all voices under -1 dBFS true peak."),
    Setting("player.gain", 0.0, "Gain in dB of everything that plays, before the limiter.", -120, 12, live=True),
    Setting("player.max_gain", 6.0, "Highest gain in dB that a voice may be given.", -60, 24),
    Setting("link", False, "Take tempo and beats from an Ableton Link session."),
    Setting("link.offset", 0.0, "Milliseconds that sound comes after Link's beat; below 0: before it.", -500, 500),
    Setting("link.start_stop", False, "End all voices when the Link session is stopped."),
    Setting("queue.length", 64, "Requests that may wait; one more is answered `busy`.", 1, 10000, live=True),
    Setting("requests.remembered", 600.0, "Seconds for which an ended request's id is known.", 1, 86400),
    Setting("engine.jobs", 0, "Requests that the engine works on together; 0: 8 on a GPU, 2 on a CPU.", 0, 64),
    Setting("engine.memory", 0.0, "MB that resident models may fill; 0: four fifths of the device's.", 0, 1e7),
    Setting(
        "engine.compile",
        "auto",
        "Whether models are made faster in the background while they already serve: auto packs weights on a CPU and "
        "compiles on CUDA, on compiles on both (a CPU needs a C++ compiler for that), off never.",
        choices=("auto", "on", "off"),
    ),
    Setting("engine.cache", _folder("cache") + os.sep + "compiled", "Folder for what was compiled; it can be deleted."),
    Setting("engine.heartbeat", 1.0, "Seconds between the engine's signs of life.", 0.05, 60),
    Setting(
        "engine.patience",
        30.0,
        "Seconds without a sign of life after which the engine is started again.",
        0.5,
        3600,
    ),
    Setting(
        "engine.yield",
        0.0,
        "Frames a second of a render loop that shares the device: after each step the engine rests for as long as the "
        "step took, in whole frames; 0: it never rests.",
        0,
        1000,
        live=True,
    ),
    Setting("stop.patience", 2.0, "Seconds that running requests get to finish when the daemon stops.", 0, 4),
    Setting("log.level", "info", "How much is logged.", choices=("debug", "info", "warning", "error")),
)
NAMED: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}

_MODEL_SOURCE = re.compile(r"models\.([A-Za-z0-9][A-Za-z0-9_.-]{0,99})\.source")
_MODEL_SOURCE_ENVIRONMENT = re.compile(r"TIMBRED_MODELS_(.+)_SOURCE")
MODEL_SOURCE_HELP = "A folder in diffusers' format, or a hub id: the model is then known by NAME."


@dataclass(frozen=True)
class Config:
    """The settings in force. `sources` are the models that the user named himself, `said` the settings that he set."""

    values: Mapping[str, Value]
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    said: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def takes_folder(self) -> Path:
        return Path(self["takes.folder"]).expanduser()

    @property
    def models_folder(self) -> Path:
        return Path(self["models.folder"]).expanduser()

    @property
    def library_file(self) -> Path:
        named = self["library.file"]
        return Path(named).expanduser() if named else self.takes_folder / ".timbred.sqlite"

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        """Folders that sounds may be read from."""
        more = [Path(part).expanduser() for part in str(self["files.allowed"]).split(os.pathsep) if part]
        return (self.takes_folder, *more)


def default_file() -> Path:
    """Where the settings file is looked for when none is named."""
    return Path(_folder("config")) / "timbred.toml"


def read(setting: Setting, raw: object) -> Value:
    """A setting's value from a file, the environment or a flag.

    Raises:
        BadRequest: naming the setting, what came, and what is allowed.
    """
    refused = BadRequest(f"setting {setting.name}: got {raw!r}, allowed is {setting.allowed}")
    if isinstance(setting.default, bool):
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        word = str(raw).lower()
        if word not in words:
            raise refused
        return words[word]
    if isinstance(setting.default, int | float):
        try:
            number = type(setting.default)(raw)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError):
            raise refused from None
        if not (setting.low or 0) <= number <= (setting.high if setting.high is not None else number):
            raise refused
        return number
    text = str(raw)
    if "\x00" in text or (setting.choices and text not in setting.choices):
        raise refused
    return text


def load(file: Path | None, environment: Mapping[str, str], flags: Iterable[str]) -> Config:
    """Build the Config from a TOML file, the environment and `KEY=VALUE` flags, each over the one before.

    Raises:
        BadRequest: an unknown setting or a value that isn't allowed.
    """
    values: dict[str, Value] = {setting.name: setting.default for setting in SETTINGS}
    sources: dict[str, str] = {}
    said: set[str] = set()
    for name, raw in (*_from_file(file), *_from_environment(environment), *_from_flags(flags)):
        source = _MODEL_SOURCE.fullmatch(name)
        if source:
            sources[source[1]] = str(raw)
        elif name in NAMED:
            values[name] = read(NAMED[name], raw)
            said.add(name)
        else:
            raise BadRequest(f"there is no setting {name!r}; there are {', '.join(NAMED)}, models.NAME.source")
    return Config(values, sources, frozenset(said))


def _from_file(file: Path | None) -> list[tuple[str, object]]:
    path = file or default_file()
    if not path.exists():
        if file is not None:
            raise BadRequest(f"the settings file {file} isn't there")
        return []
    try:
        return list(_flatten(tomllib.loads(path.read_text("utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadRequest(f"the settings file {path} can't be read: {error}") from error


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            # `tempo = 120` beside `[device]` tables: a table's own value is spelled `value`
            yield (prefix[:-1] if key == "value" and prefix else prefix + key), value


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, object]]:
    known = {setting.environment: setting.name for setting in SETTINGS}
    found: list[tuple[str, object]] = []
    for variable, raw in environment.items():
        source = _MODEL_SOURCE_ENVIRONMENT.fullmatch(variable)
        if variable in known:
            found.append((known[variable], raw))
        elif source:
            found.append((f"models.{source[1].lower().replace('_', '-')}.source", raw))
    return found


def _from_flags(flags: Iterable[str]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for flag in flags:
        name, equals, raw = flag.partition("=")
        if not equals:
            raise BadRequest(f"--set {flag}: write it as KEY=VALUE, for instance --set osc.port=7780")
        found.append((name.strip(), raw.strip()))
    return found
