"""The recordings of the data set with their licences, all of which are listed in `NOTICE`."""

from dataclasses import dataclass
from pathlib import Path

from training.pocket.settings import REPOSITORY

NOTICE = REPOSITORY / "NOTICE"


@dataclass(frozen=True)
class Source:
    """Recordings of one package.

    Attributes:
        package: Debian package that installs it.
        path: its installed file or folder.
        licence: short name of its licence.
        evaluation_only: True if it isn't used for training.
    """

    package: str
    path: Path
    licence: str
    evaluation_only: bool = False


SOURCES = {
    "font": Source(
        "musescore-general-soundfont-lossless", Path("/usr/share/sounds/sf2/MuseScore_General_Full.sf2"), "MIT"
    ),
    "samples": Source("sonic-pi-samples", Path("/usr/share/sonic-pi/samples"), "CC0"),
    "other font": Source("fluid-soundfont-gm", Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), "MIT", True),
}


def path_of(name: str) -> Path:
    """Return the path of a source's recordings.

    Raises:
        PermissionError: NOTICE doesn't list the source's package and licence.
        FileNotFoundError: The package isn't installed.
    """
    source = SOURCES[name]
    if not is_in_notice(source):
        raise PermissionError(
            f"{source.package} ({source.licence}) has no entry in {NOTICE.name}: add its licence first"
        )
    if not source.path.exists():
        raise FileNotFoundError(f"{source.path} is missing: apt-get install {source.package}")
    return source.path


def is_in_notice(source: Source, notice: str | None = None) -> bool:
    """Return True if NOTICE has a section with the package's name and licence."""
    text = notice if notice is not None else NOTICE.read_text() if NOTICE.exists() else ""
    return any(section.startswith(source.package) and source.licence in section for section in text.split("\n## ")[1:])
