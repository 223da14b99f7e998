"""Generation of the page of settings and commands: `python docs/hooks/settings.py > docs/settings.md`."""

from typing import Any

import typer

from timbred.cli.main import app
from timbred.config import MODEL_SOURCE_HELP, SETTINGS, SettingSpec

HEAD = """# Settings and commands

This page is generated from the program by `make docs`.

Settings come from the settings file (TOML), the environment, and `--set KEY=VALUE`; each overrides the one before.
An unknown setting is refused with the nearest name; an environment variable `TIMBRED_...` that is no setting is ignored
with a warning that names the nearest one.
The file is `timbred.toml` in the user's configuration folder, or the one named by `--config`:

```toml
[osc]
port = 7770

[takes]
folder = "~/Music/takes"

[models.mine]
source = "/data/audioldm2"
```

An empty environment variable counts as unset. An empty value after `--set` or in the file is refused, except for
settings that give it a meaning. A relative path starts from the settings file's folder, or, in the environment and
after `--set`, from the working folder; `~` is the home folder. A model's source is a path if it is absolute or begins
with `.` or `~`, and a hub id otherwise. If the user has no home folder (a service, a container), `takes.folder` must be
set; models are then stored in `.timbred-models` in it, and compiled code isn't cached.

The file may be UTF-8 with or without a byte order mark, UTF-16, UTF-32 or in Windows' western code page, with any line
ends. Windows paths go in single quotes, `'C:\\Users\\me'`, or are written with `/`.

A setting that has others below it is called `value` there: `device = "cpu"`, or `[device]` with `value = "cpu"` and
`threads = 2`.

## Settings

Settings marked `live` can be changed while the daemon runs: `/timbred/settings/NAME VALUE`.

| setting | environment | default | allowed | meaning | |
| --- | --- | --- | --- | --- | --- |
"""

MACHINE_DEFAULTS = {
    "models.folder": "the user's data folder",
    "loras.folder": "the user's data folder",
    "takes.folder": "`timbred` in the user's music folder",
    "engine.cache": "`compiled` in the user's cache folder",
}
"""Descriptions of defaults that depend on the machine."""


def settings_reference() -> str:
    """Return the whole page as Markdown."""
    rows = "\n".join(_row(setting) for setting in SETTINGS)
    source = f"| `models.NAME.source` | `TIMBRED_MODELS_NAME_SOURCE` | | a folder or a hub id | {MODEL_SOURCE_HELP} | |"
    commands = "\n".join(_commands(typer.main.get_command(app), "timbred"))
    return f"{HEAD}{rows}\n{source}\n\n## Commands\n\n{commands}"


def _row(setting: SettingSpec) -> str:
    value = int(setting.default) if isinstance(setting.default, bool) else setting.default
    default = MACHINE_DEFAULTS.get(setting.name, f"`{value}`" if value != "" else "")
    meaning = setting.help.replace("|", "\\|")
    live = "live" if setting.live else ""
    return f"| `{setting.name}` | `{setting.environment}` | {default} | {setting.allowed} | {meaning} | {live} |"


def _commands(command: Any, path: str) -> list[str]:
    """Return a section for a command, and one for each of its subcommands."""
    lines = [f"### `{path}`\n", f"{_paragraph(command)}\n"]
    lines += [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
    lines.append("")
    for name, child in getattr(command, "commands", {}).items():
        lines += _commands(child, f"{path} {name}")
    return lines


def _paragraph(command: Any) -> str:
    return "\n".join(line.strip() for line in (command.help or "").strip().splitlines())


def _parameter(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"- {names}: {getattr(parameter, 'help', '') or ''}"


if __name__ == "__main__":
    print(settings_reference(), end="")
