"""Declarations of the settings, and their values from a file, the environment and flags.

Settings files may be UTF-8 with and without a byte order mark, UTF-16 or UTF-32 (Windows editors), or text that isn't
Unicode (Windows' western code page), with every kind of line end, and NULs at the end (after a loss of power).
"""

import codecs
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timbred.disk import Kind, describe_user, user_folder
from timbred.errors import BadRequest
from timbred.filenames import is_utf8, name_fault, printable

MAX_FILE_BYTES = 1_000_000
"""Maximum size of a settings file."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_settings(path: Path) -> dict[str, Any]:
    """Read the table in a settings file.

    Raises:
        BadRequest: It can't be read; the message has the position and the remedy.
    """
    shown = printable(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"the settings file {shown} can't be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise BadRequest(
            f"the settings file {shown} is larger than {MAX_FILE_BYTES} bytes: choose another with --config"
        )
    try:
        return parsed(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRequest(f"the settings file {shown} can't be read: {error}{_hint(decoded(content))}") from error


def parsed(content: bytes) -> dict[str, Any]:
    """Parse the bytes of a settings file.

    Raises:
        tomllib.TOMLDecodeError, RecursionError: They aren't TOML.
    """
    return tomllib.loads(decoded(content))


def decoded(content: bytes) -> str:
    r"""Decode the bytes of a settings file, with the line ends that TOML allows.

    >>> decoded(b"\xef\xbb\xbftempo = 90\r\n\0\0")
    'tempo = 90\n'
    >>> decoded(b"t\0e\0m\0p\0o\0=\0\x31\0")
    'tempo=1'
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, "replace")
            break
    else:
        text = _without_mark(content)
    lines = text.removeprefix("\ufeff").rstrip("\0\x1a")  # 0x1a ends text files of old DOS editors
    return re.sub(r"\r\n?|[\u2028\u2029]", "\n", lines)


def _without_mark(content: bytes) -> str:
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return content.decode("utf-16-le", "replace")
    if content[:1] == b"\0" and content[1:2] not in (b"\0", b""):
        return content.decode("utf-16-be", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # latin-1 has the five bytes that the code page leaves out
        return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in content)


def _hint(text: str) -> str:
    if re.search("[\u201c\u201d\u201e\u2018\u2019]", text):
        return '. It contains typographic quotation marks; use plain ones, "..."'
    if re.search(r'=\s*"[^"\n]*\\', text):
        return r". Write a path with \ in single quotes, or with /"
    return ""


Value = str | int | float | bool


def variable_name(setting: str) -> str:
    """Return the name of the environment variable of a setting."""
    return "TIMBRED_" + setting.upper().replace(".", "_")


@dataclass(frozen=True)
class SettingSpec:
    """Declaration of one setting.

    Attributes:
        name: Its name, `part.word`.
        default: Its default, which decides its type.
        help: One sentence for the settings page.
        low: Lowest number.
        high: Highest number.
        choices: Allowed words; empty for any.
        live: True if it can be changed while the daemon runs.
        is_path: True if it is a path, or several as in PATH.
        may_be_empty: True if an empty text is a valid value.
        is_secret: True if its value must not be shown.
    """

    name: str
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    is_path: bool = False
    may_be_empty: bool = False
    is_secret: bool = False

    @property
    def environment(self) -> str:
        """Name of the environment variable."""
        return variable_name(self.name)

    @property
    def allowed(self) -> str:
        """Description of the allowed values."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if isinstance(self.default, bool):
            return "0 or 1"
        if isinstance(self.default, int | float):
            kind = "a whole number" if isinstance(self.default, int) else "a number"
            return f"{kind} from {self.low:g} to {self.high:.10g}"
        return "text"

    def in_range(self, number: float) -> bool:
        """Return True if a number is within the limits; without a lower limit it must not be negative."""
        low = 0 if self.low is None else self.low
        return low <= number and (self.high is None or number <= self.high)


def _default_folder(kind: Kind, *below: str) -> str:
    """Return a folder below the user's folder of this kind; empty if the user has no home folder."""
    folder = user_folder(kind)
    return "" if folder is None else str(folder.joinpath(*below))


SETTINGS: tuple[SettingSpec, ...] = (
    SettingSpec("host", "127.0.0.1", "Address that all ports are bound to; see docs/access.md for other machines."),
    SettingSpec("access.open", False, "Demand no key, no token and no allowed address of other machines."),
    SettingSpec(
        "access.token", "", "Token for HTTP; empty: the one of `timbred keys make`.", may_be_empty=True, is_secret=True
    ),
    SettingSpec(
        "access.allow", "", "Addresses and networks of other machines whose OSC is accepted.", may_be_empty=True
    ),
    SettingSpec("osc.port", 7770, "Port for OSC over UDP and TCP; 0 selects a free port.", 0, 65535),
    SettingSpec(
        "zmq.requests", 7771, "Port of the ZeroMQ ROUTER socket for requests; 0 selects a free port.", 0, 65535
    ),
    SettingSpec("zmq.events", 7772, "Port of the ZeroMQ PUB socket for events; 0 selects a free port.", 0, 65535),
    SettingSpec("http.port", 7773, "Port for HTTP and WebSocket; 0 selects a free port.", 0, 65535),
    SettingSpec(
        "discovery.announce",
        True,
        "Announce the daemon by zeroconf (mDNS) as `_oscjson._tcp` and `_osc._udp` where its ports can be reached.",
    ),
    SettingSpec(
        "discovery.name", "timbred", "Name in zeroconf and OSCQuery; zeroconf appends a port other than the default."
    ),
    SettingSpec("device", "auto", "Compute device of a single engine: auto, cpu, cuda:0, mps."),
    SettingSpec("device.threads", 0, "Maximum number of CPU threads of an engine; 0: its share of the cores.", 0, 1024),
    SettingSpec(
        "engines",
        "auto",
        "Engines, by their devices: `cuda:0 cuda:1`, `cpu cpu`, `ray://HOST:PORT 2` (two on a Ray cluster), or several "
        "of these; auto: one for each CUDA device, or one on the device of the setting `device`.",
    ),
    SettingSpec("models.default", "pocket", "Model of requests without `model`.", live=True),
    SettingSpec("models.preload", True, "Load the default model at the start instead of at its first request."),
    SettingSpec("models.folder", _default_folder("data", "models"), "Folder of downloaded models.", is_path=True),
    SettingSpec("loras.folder", _default_folder("data", "loras"), "Folder of LoRAs.", is_path=True),
    SettingSpec("takes.folder", _default_folder("music"), "Folder in which audio files are written.", is_path=True),
    SettingSpec(
        "files.allowed",
        "",
        "Additional folders from which audio files may be read, separated as in PATH.",
        is_path=True,
        may_be_empty=True,
    ),
    SettingSpec(
        "library.file",
        "",
        "SQLite file of the library; empty: `.timbred.sqlite` in the takes folder.",
        is_path=True,
        may_be_empty=True,
    ),
    SettingSpec(
        "audio.rate",
        48000,
        "Session sample rate in Hz, the default of `rate`; until it is set, the rate of the audio device.",
        8000,
        192000,
        live=True,
    ),
    SettingSpec("tempo", 120.0, "Session tempo in beats per minute, used for `bars` and `at`.", 20, 999, live=True),
    SettingSpec("beats_per_bar", 4.0, "Beats per bar.", 1, 32, live=True),
    SettingSpec(
        "player.device", "", "Audio output device, by name or number; empty: the system's default.", may_be_empty=True
    ),
    SettingSpec("player.channels", 2, "Number of output channels to open, if the audio device has that many.", 1, 256),
    SettingSpec(
        "player.lead",
        10.0,
        "Milliseconds that audio is mixed ahead of the device. Higher values prevent dropouts and add latency.",
        1,
        500,
    ),
    SettingSpec(
        "player.patience", 10.0, "Seconds without a heartbeat after which the player process is restarted.", 0.5, 3600
    ),
    SettingSpec("player.limiter", True, "Limit the sum of all voices to -1 dBFS true peak."),
    SettingSpec("player.gain", 0.0, "Gain of the sum of all voices in dB, before the limiter.", -120, 12, live=True),
    SettingSpec("player.max_gain", 6.0, "Maximum gain of a voice in dB.", -60, 24),
    SettingSpec("link", False, "Follow the tempo and beats of an Ableton Link session."),
    SettingSpec(
        "link.offset", 0.0, "Milliseconds by which playback is delayed after Link's beat; negative: earlier.", -500, 500
    ),
    SettingSpec("link.start_stop", False, "Stop all voices when the Link session stops."),
    SettingSpec(
        "queue.length", 64, "Maximum number of queued requests; further ones fail with `busy`.", 1, 10000, live=True
    ),
    SettingSpec(
        "engine.jobs",
        0,
        "Maximum number of requests that an engine renders at the same time; 0: 8 on a GPU, 2 on a CPU.",
        0,
        64,
    ),
    SettingSpec(
        "engine.memory", 0.0, "Memory limit for an engine's models in MB; 0: 80 % of the device's memory.", 0, 1e7
    ),
    SettingSpec(
        "engine.compile",
        "auto",
        "Optimise loaded models in the background. auto: pack weights on a CPU, compile on CUDA; on: compile "
        "on both (a CPU needs a C++ compiler); off: never.",
        choices=("auto", "on", "off"),
    ),
    SettingSpec(
        "engine.cache",
        _default_folder("cache", "compiled"),
        "Folder of the compilation cache; it can be deleted.",
        is_path=True,
    ),
    SettingSpec(
        "engine.spare",
        "auto",
        "Keep a second engine process ready that replaces a crashed one without delay; it uses about 400 MB. auto: "
        "with a single engine, if 3 GB of memory are available; on: for each engine; off: never.",
        choices=("auto", "on", "off"),
    ),
    SettingSpec(
        "engine.patience", 30.0, "Seconds without a heartbeat after which the engine process is restarted.", 0.5, 3600
    ),
    SettingSpec(
        "engine.yield",
        0.0,
        "Frames per second of a video application on the same GPU: after each step the engine pauses for the step's "
        "duration, rounded to whole frames; 0: no pauses.",
        0,
        1000,
        live=True,
    ),
    SettingSpec("log.level", "info", "Lowest level of log messages.", choices=("debug", "info", "warning", "error")),
)
NAMED: dict[str, SettingSpec] = {setting.name: setting for setting in SETTINGS}

REMOVED_NAMES = ("engine.heartbeat", "requests.remembered", "stop.patience")
"""Settings of earlier versions that are ignored with a warning."""

DEFAULT_LIBRARY_NAME = ".timbred.sqlite"
"""The library's name in the takes folder."""

UNENCODABLE_ALLOWED = frozenset({"takes.folder", "files.allowed", "library.file", "engine.cache"})
"""Paths that may contain bytes other than UTF-8. With such a takes folder, requests for files are refused."""

_MODEL_SOURCE = re.compile(r"models\.([A-Za-z0-9][A-Za-z0-9_.-]{0,99})\.source")
_MODEL_SOURCE_ENVIRONMENT = re.compile(r"TIMBRED_MODELS_(.+)_SOURCE")
_PREFIX = "TIMBRED_"
_TEST_PREFIX = "TIMBRED_TEST_"
OTHER_VARIABLES = frozenset({"TIMBRED_ENGINE_PROGRAM", "TIMBRED_ANSWERS_PORT", "TIMBRED_SCRIPTS"})
"""Variables that aren't settings, for tests of the daemon and for examples of bridges."""

MODEL_SOURCE_HELP = (
    "Folder in diffusers' format, or hub id, of a model that requests select by NAME; `clap` is the component that "
    "ranks takes, a folder laid out as laion/clap-htsat-unfused."
)


@dataclass(frozen=True)
class Config:
    """The values of all settings.

    Attributes:
        values: Value of each setting.
        sources: Models that the user named, with their sources.
        set_by_user: Names of the settings that the user set.
        warnings: Warnings of ignored variables and removed settings.
    """

    values: Mapping[str, Value]
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    set_by_user: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def takes_folder(self) -> Path:
        """The takes folder.

        Raises:
            BadRequest: It isn't set, and there is no home folder for a default.
        """
        folder = self["takes.folder"]
        if not folder:
            raise BadRequest(
                f"takes.folder: {describe_user()} has no home folder, so there is no default; set a folder with"
                " --set takes.folder=FOLDER or TIMBRED_TAKES_FOLDER"
            )
        return Path(folder)

    @property
    def models_folder(self) -> Path:
        """The models folder; inside the takes folder if there is no home folder.

        Raises:
            BadRequest: As `takes_folder`.
        """
        folder = self["models.folder"]
        return Path(folder) if folder else self.takes_folder / ".timbred-models"

    @property
    def loras_folder(self) -> Path:
        """The folder of LoRAs; inside the takes folder if there is no home folder.

        Raises:
            BadRequest: As `takes_folder`.
        """
        folder = self["loras.folder"]
        return Path(folder) if folder else self.takes_folder / ".timbred-loras"

    @property
    def library_file(self) -> Path:
        """The library's file.

        Raises:
            BadRequest: As `takes_folder`.
        """
        named = self["library.file"]
        return Path(named) if named else self.takes_folder / DEFAULT_LIBRARY_NAME

    @property
    def spare_library_folder(self) -> Path | None:
        """Folder of the library that replaces an unusable `library_file`; None without a home folder."""
        return user_folder("data")

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        """Folders that files may be read from."""
        more = [Path(part) for part in str(self["files.allowed"]).split(os.pathsep) if part]
        return (self.takes_folder, *more)


def default_file() -> Path | None:
    """Return the default path of the settings file; None without a home folder."""
    folder = user_folder("config")
    return None if folder is None else folder / "timbred.toml"


_TRUE_WORDS, _FALSE_WORDS = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


def read(setting: SettingSpec, raw: object) -> Value:
    """Convert and check a value from a file, the environment, a flag or a client.

    Raises:
        BadRequest: The value isn't allowed; the message states the setting, the value and the allowed values.
    """
    shown = "a secret value" if setting.is_secret else printable(repr(raw))
    refused = BadRequest(f"setting {setting.name}: got {shown}, allowed is {setting.allowed}")
    if isinstance(raw, str) and not raw.strip() and not setting.may_be_empty:
        raise BadRequest(
            f"setting {setting.name}: the value is empty, allowed is {setting.allowed}; omit it to use the default"
        )
    if isinstance(raw, list | dict):
        raise refused
    if isinstance(setting.default, bool):
        word = str(raw).lower()
        if word not in _TRUE_WORDS | _FALSE_WORDS:
            raise refused
        return word in _TRUE_WORDS
    if isinstance(setting.default, int | float):
        try:
            number = type(setting.default)(raw)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError):
            raise refused from None
        if not setting.in_range(number):
            raise refused
        return number
    text = str(raw)
    if "\x00" in text or (setting.choices and text not in setting.choices):
        raise refused
    if not is_utf8(text) and setting.name not in UNENCODABLE_ALLOWED:
        shown = "a secret value" if setting.is_secret else printable(text)
        raise BadRequest(f"setting {setting.name}: got {shown}, which isn't UTF-8; choose another name")
    return text


def load(file: Path | None, environment: Mapping[str, str], flags: Iterable[str]) -> Config:
    """Load the settings from a TOML file, the environment and `KEY=VALUE` flags; later ones take precedence.

    Raises:
        BadRequest: A setting is unknown, or a value isn't allowed.
    """
    values: dict[str, Value] = {setting.name: setting.default for setting in SETTINGS}
    sources: dict[str, str] = {}
    set_by_user: set[str] = set()
    removed: set[str] = set()
    for name, raw, base in (*_from_file(file), *_from_environment(environment), *_from_flags(flags)):
        source = _MODEL_SOURCE.fullmatch(name)
        if source:
            sources[_model_name(source[1])] = _model_source(name, str(raw), base)
        elif name in NAMED:
            value = read(NAMED[name], _joined(raw, _SEPARATORS[name]) if name in _SEPARATORS else raw)
            values[name] = _absolute(NAMED[name], str(value), base) if NAMED[name].is_path else value
            set_by_user.add(name)
        elif name in REMOVED_NAMES:
            removed.add(name)
        else:
            raise BadRequest(
                f"there is no setting {name!r}{_suggestion(name, NAMED)}; the settings are {', '.join(NAMED)}, "
                "models.NAME.source"
            )
    warnings = (*map(_removal_warning, sorted(removed)), *_unknown_variables(environment))
    return Config(values, sources, frozenset(set_by_user), warnings)


def _removal_warning(name: str) -> str:
    return f"the setting {name} ({variable_name(name)}) has no effect any more and is ignored; remove it"


def _unknown_variables(environment: Mapping[str, str]) -> Iterable[str]:
    """Return a warning for each variable that has the prefix of settings but isn't one."""
    known = {setting.environment for setting in SETTINGS}
    removed = set(map(variable_name, REMOVED_NAMES))
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(_PREFIX) or name.startswith(_TEST_PREFIX) or name in OTHER_VARIABLES:
            continue
        if variable in known or variable in removed or _MODEL_SOURCE_ENVIRONMENT.fullmatch(variable):
            continue
        source = re.sub(r"^(TIMBRED_MODELS_.+)_[^_]*$", r"\1_SOURCE", name)
        candidates = known | ({source} if _MODEL_SOURCE_ENVIRONMENT.fullmatch(source) else set())
        yield f"the environment variable {variable} isn't a setting and is ignored{_suggestion(name, candidates)}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


_RawValue = tuple[str, object, Path | None]
"""Name of a setting, its raw value, and the folder that a relative path starts from (None: the working folder)."""


def _from_file(file: Path | None) -> list[_RawValue]:
    path = file or default_file()
    if path is None or (file is None and not os.path.lexists(path)):
        return []
    if file is not None and not os.path.lexists(file):
        raise BadRequest(f"the settings file {printable(str(file))} doesn't exist")
    return [(name, raw, path.parent) for name, raw in _flatten(read_settings(path))]


_SEPARATORS = {"files.allowed": os.pathsep, "access.allow": " ", "engines": " "}
"""Settings that may be lists in a settings file, with the separator of their texts."""


def _joined(raw: object, separator: str) -> object:
    """Join a list, as TOML has it, to one text."""
    return separator.join(map(str, raw)) if isinstance(raw, list) else raw


def _absolute(setting: SettingSpec, text: str, base: Path | None) -> str:
    """Make a path, or each of several, absolute, and expand `~`.

    Raises:
        BadRequest: The user, the home folder or the working folder doesn't exist.
    """
    if setting.name == "files.allowed":
        return os.pathsep.join(_absolute_path(setting.name, part, base) for part in text.split(os.pathsep) if part)
    return _absolute_path(setting.name, text, base) if text else ""


def _absolute_path(name: str, text: str, base: Path | None) -> str:
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise BadRequest(
            f"setting {name}: {printable(text)}: there is no such home folder; use an absolute path"
        ) from None
    try:
        return str(path if path.is_absolute() else ((base or Path()) / path).absolute())
    except OSError as error:
        raise BadRequest(
            f"setting {name}: {printable(text)} is relative to the working folder, which doesn't exist;"
            " use an absolute path"
        ) from error


def _model_name(name: str) -> str:
    if fault := name_fault(name):
        raise BadRequest(f"setting models.{name}.source: {fault}; choose another name for the model")
    return name


def _model_source(name: str, text: str, base: Path | None) -> str:
    """Return a hub id unchanged, and a path (which begins with `/`, `.` or `~`) absolute."""
    if not text.strip():
        raise BadRequest(f"setting {name}: the value is empty; give a folder in diffusers' format, or a hub id")
    if not is_utf8(text):
        raise BadRequest(f"setting {name}: got {printable(text)}, which isn't UTF-8; rename the folder")
    is_path = Path(text).is_absolute() or text.startswith((".", "~"))
    return _absolute_path(name, text, base) if is_path else text


def _flatten(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            # `tempo = 120` next to `[device]` tables: a table's own value is spelled `value`
            yield (prefix[:-1] if key == "value" and prefix else prefix + key), value


def _from_environment(environment: Mapping[str, str]) -> list[_RawValue]:
    """Return the settings in the environment; an empty variable counts as unset."""
    known = {variable_name(name): name for name in (*NAMED, *REMOVED_NAMES)}
    settings: list[_RawValue] = []
    for variable, raw in environment.items():
        source = _MODEL_SOURCE_ENVIRONMENT.fullmatch(variable)
        if not raw.strip():
            continue
        if variable in known:
            settings.append((known[variable], raw, None))
        elif source:
            settings.append((f"models.{source[1].lower().replace('_', '-')}.source", raw, None))
    return settings


def _from_flags(flags: Iterable[str]) -> list[_RawValue]:
    settings: list[_RawValue] = []
    for flag in flags:
        name, equals, raw = flag.partition("=")
        if not equals:
            raise BadRequest(f"--set {flag}: use the form KEY=VALUE, for example --set osc.port=7780")
        settings.append((name.strip(), raw.strip(), None))
    return settings
