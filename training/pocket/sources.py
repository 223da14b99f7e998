"""The recordings that the data set is rendered from, each with its licence. `NOTICE` names every one of them."""

from dataclasses import dataclass
from pathlib import Path

from training.pocket.settings import REPOSITORY

NOTICE = REPOSITORY / "NOTICE"


@dataclass(frozen=True)
class Source:
    """Recordings of one package.

    Attributes:
        package: Debian package that installs it.
        path: where it lies once installed.
        licence: short name of its licence.
        evaluation_only: never trained with.
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
    """Where the recordings of `name` lie.

    Raises:
        PermissionError: NOTICE doesn't name the source's package and licence.
        FileNotFoundError: the package isn't installed.
    """
    source = SOURCES[name]
    if not noticed(source):
        raise PermissionError(
            f"{source.package} ({source.licence}) has no entry in {NOTICE.name}: add its licence first"
        )
    if not source.path.exists():
        raise FileNotFoundError(f"{source.path} is missing: apt-get install {source.package}")
    return source.path


def noticed(source: Source, notice: str | None = None) -> bool:
    """Whether NOTICE has a section with the package's name and licence."""
    text = notice if notice is not None else NOTICE.read_text() if NOTICE.exists() else ""
    return any(section.startswith(source.package) and source.licence in section for section in text.split("\n## ")[1:])
