"""`timbred takes`: the stored takes."""

from datetime import datetime
from pathlib import Path

from timbred.cli.serve import settings_from
from timbred.cli.tables import show
from timbred.library.spare import open_library, spare_file
from timbred.library.takes import StoredTake

COLUMNS = {"take_id": "take", "made": "made", "prompt": "prompt", "model": "model", "seed": "seed", "seconds": "s",
           "path": "file"}  # fmt: skip


def takes(search: str, limit: int, as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the stored takes, newest first. Reads the library itself: needs no daemon."""
    config = settings_from(file, flags)
    found: list[StoredTake] = []
    spare_folder = config.spare_library_folder
    if config.library_file.exists() or (spare_folder and spare_file(spare_folder, config.library_file).exists()):
        library = open_library(config.library_file, spare_folder)
        try:
            found = library.search(search, limit)
        finally:
            library.close()
    show([_row(take) for take in found], COLUMNS, as_json, 'no takes yet: timbred say "a bright bell" makes one')


def _row(take: StoredTake) -> dict[str, object]:
    path = "" if take.path is None else str(take.path)
    return {
        "take_id": take.take_id,
        "made": datetime.fromtimestamp(take.created).astimezone().isoformat(timespec="seconds"),
        "prompt": take.prompt,
        "model": take.model,
        "seed": take.seed,
        "seconds": take.seconds,
        "rate": take.rate,
        "channels": take.channels,
        "path": f"{path} (gone)" if take.missing else path,
    }
