"""Generation of the patches next to this folder: `python -m bridges.puredata.source [FOLDER]`."""

import sys
from pathlib import Path

from bridges.puredata.source.patches import patches


def main(folder: Path) -> None:
    """Write every patch into `folder`."""
    for name, patch in patches().items():
        (folder / name).write_text(patch.text(), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
