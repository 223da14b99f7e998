"""The settings that can change while the daemon runs, and those that can't."""

from collections.abc import Callable

from timbred.config import NAMED, Config, Value, read
from timbred.errors import BadRequest
from timbred.filenames import printable
from timbred.jobs.parameters import Session


class LiveSettings:
    """The values in force."""

    def __init__(self, config: Config, check: Callable[[str, Value], None]) -> None:
        """`check` hears of a change before it is made, and may refuse it by an error."""
        # values are told to clients, as UTF-8
        self._values: dict[str, Value] = {
            name: printable(value) if isinstance(value, str) else value for name, value in config.values.items()
        }
        self._said = set(config.said)
        self._check = check
        self.on_change: Callable[[str, Value], None] = lambda _name, _value: None
        """Hears of each change, and of each value that something else decides and that is new."""

    def __getitem__(self, name: str) -> Value:
        """Raises:
        BadRequest: there is no such setting; lists those there are.
        """
        if name not in self._values:
            raise BadRequest(f"there is no setting {name!r}; there are {', '.join(self._values)}")
        return self._values[name]

    def change(self, name: str, raw: object) -> None:
        """Set a value from outside.

        Raises:
            BadRequest: there is no such setting, it can't change now, or the value isn't allowed.
        """
        _ = self[name]
        if not NAMED[name].live:
            live = ", ".join(setting.name for setting in NAMED.values() if setting.live)
            raise BadRequest(f"setting {name}: set it at the start, with --set {name}={raw}; while running: {live}")
        value = read(NAMED[name], raw)
        self._check(name, value)
        self._values[name] = value
        self._said.add(name)
        self.on_change(name, value)

    def follow_until_said(self, name: str, value: Value) -> None:
        """A value that something else decides as long as the user hasn't, if it is one of those allowed."""
        setting = NAMED[name]
        allowed = not isinstance(value, int | float) or (setting.low or 0) <= value <= (setting.high or value)
        if name not in self._said and allowed:
            self.follow(name, value)

    def follow(self, name: str, value: Value) -> None:
        """A value that something else decides (the system a free port, a Link session its tempo)."""
        if self._values[name] != value:
            self._values[name] = value
            self.on_change(name, value)

    @property
    def session(self) -> Session:
        """What the session lends to requests."""
        return Session(int(self["audio.rate"]), float(self["tempo"]), float(self["beats_per_bar"]))
