"""Generation of the Quark's files from the declarations: `python -m bridges.supercollider.source [FOLDER]`."""

import sys
from pathlib import Path

from bridges.supercollider.source.classes import methods_file, vocabulary_file
from bridges.supercollider.source.page import page
from bridges.supercollider.source.reference import reference


def main(folder: Path) -> None:
    """Write the files into `folder`, which has the layout of the Quark."""
    for name, text in {
        "Classes/TimbredRequests.sc": methods_file(),
        "Classes/TimbredVocabulary.sc": vocabulary_file(),
        "HelpSource/Classes/Timbred.schelp": page(),
        "HelpSource/Reference/TimbredKeys.schelp": reference(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
