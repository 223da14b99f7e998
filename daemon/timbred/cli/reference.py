"""The page of all settings and commands, made from their declarations: `python -m timbred.cli.reference`."""

from typing import Any

import typer

from timbred.cli.main import app
from timbred.config import MODEL_SOURCE_HELP, SETTINGS, SettingSpec

HEAD = """# Settings and commands

This page is made from the program by `make docs`.

A setting comes from the settings file (TOML), the environment, or `--set KEY=VALUE`; each goes over the one before.
One that there isn't is refused with the nearest name; a variable `TIMBRED_...` that is no setting is ignored with a
warning that names the nearest one.
The file is `timbred.toml` in the user's configuration folder, or the one named by `--config`:

```toml
[osc]
port = 7770

[takes]
folder = "~/Music/takes"

[models.mine]
source = "/data/audioldm2"
```

An empty environment variable counts as unset. An empty value after `--set` or in the file is refused, but for settings
that say what empty means. A relative path starts from the settings file's folder, or, in the environment and after
`--set`, from the working folder; `~` is the home folder. A model's source is a path if it is absolute or begins with
`.` or `~`, and a hub id otherwise. Where the user has no home folder (a service, a container), `takes.folder` has to be
named; models then go to `.timbred-models` in it, and nothing compiled is kept.

The file may be written by any editor: UTF-8 with or without a byte order mark, UTF-16, UTF-32 or Windows' western code
page, with any line ends. Windows paths go in single quotes, `'C:\\Users\\me'`, or are written with `/`.

A setting that has others below it is called `value` there: `device = "cpu"`, or `[device]` with `value = "cpu"` and
`threads = 2`.

## Settings

Those marked `live` can be changed while the daemon runs: `/timbred/settings/NAME VALUE`.

| setting | environment | default | allowed | meaning | |
| --- | --- | --- | --- | --- | --- |
"""

OF_THIS_MACHINE = {
    "models.folder": "the user's data folder",
    "takes.folder": "`timbred` in the user's music folder",
    "engine.cache": "`compiled` in the user's cache folder",
}
"""Defaults that hang on the machine, in words."""


def settings_reference() -> str:
    """The whole page."""
    rows = "\n".join(_row(setting) for setting in SETTINGS)
    source = f"| `models.NAME.source` | `TIMBRED_MODELS_NAME_SOURCE` | | a folder or a hub id | {MODEL_SOURCE_HELP} | |"
    commands = "\n".join(_commands(typer.main.get_command(app), "timbred"))
    return f"{HEAD}{rows}\n{source}\n\n## Commands\n\n{commands}"


def _row(setting: SettingSpec) -> str:
    default = OF_THIS_MACHINE.get(setting.name, f"`{setting.default}`" if setting.default != "" else "")
    meaning = setting.help.replace("|", "\\|")
    live = "live" if setting.live else ""
    return f"| `{setting.name}` | `{setting.environment}` | {default} | {setting.allowed} | {meaning} | {live} |"


def _commands(command: Any, path: str) -> list[str]:
    """A section for a command, and one for each of its own."""
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
