"""Sounds with captions from which a LoRA is trained, the order to train it, and the progress; without torch."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from timbred.errors import BadRequest
from timbred.filenames import is_utf8, printable

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".aif", ".aiff", ".ogg", ".mp3"})
"""Endings of the files that are read."""

MAX_SOUNDS = 10_000
MAX_CAPTION_CHARACTERS = 2000

ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
"""Endings of the names of the layers that are trained, which the denoisers of all families have."""

Line = TypeVar("Line", "TrainingOrder", "TrainingReport")


def encode_line(message: "TrainingOrder | TrainingReport") -> bytes:
    """Return a message as a line of JSON in ASCII; paths that aren't UTF-8 are kept."""
    return json.dumps(msgspec.to_builtins(message)).encode("ascii") + b"\n"


def decode_line(line: bytes, kind: type[Line]) -> Line:
    """Return the message in a line of `encode_line`."""
    return msgspec.convert(json.loads(line), kind)


class LabelledSound(msgspec.Struct, frozen=True, kw_only=True):
    """A sound's file, its caption, and its size in bytes, by which a changed file is noticed."""

    path: str
    caption: str
    size: int


class TrainingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The LoRA that is trained, its sounds, and the options of the training.

    Attributes:
        name: Name of the LoRA.
        model: Name of the model.
        model_folder: Its checkpoint.
        loras_folder: The LoRA folder.
        sounds: The sounds.
        steps: Training steps in all.
        preview_steps: A sound is rendered after each so many steps; 0 for none.
        learning_rate: The optimiser's learning rate.
        rank: Rank of the matrices.
        batch: Sounds of one step.
        seconds: Longest part of a sound that is used at once.
        min_seconds: Shortest sound that the model renders.
        channels: Channels of its sound.
        scheduler: Noise scheduler of a preview.
        render_steps: Denoising steps of a preview.
        guidance: Guidance of a preview.
        seed: Decides the first matrices, and the choices of each step.
        device: Compute device.
    """

    name: str
    model: str
    model_folder: str
    loras_folder: str
    sounds: tuple[LabelledSound, ...]
    steps: int
    preview_steps: int
    learning_rate: float
    rank: int
    batch: int
    seconds: float
    min_seconds: float
    channels: int
    scheduler: str
    render_steps: int
    guidance: float
    seed: int
    device: str

    @property
    def files(self) -> "TrainingFiles":
        """Its files in the LoRA folder."""
        return TrainingFiles(Path(self.loras_folder), self.name)

    def identity(self) -> str:
        """Return the options that must be equal for training to be continued: all but its length and its previews."""
        free = {"steps": 0, "preview_steps": 0, "device": "", "scheduler": "", "render_steps": 0, "guidance": 0.0}
        return encode_line(msgspec.structs.replace(self, **free)).decode().strip()


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a training in the LoRA folder. Names of LoRAs don't begin with a dot.

    Attributes:
        folder: The LoRA folder.
        name: Name of the LoRA.
    """

    folder: Path
    name: str

    @property
    def state(self) -> Path:
        """The file from which interrupted training continues."""
        return self.folder / f".{self.name}.training"

    @property
    def lock(self) -> Path:
        """The file that is locked while the LoRA is trained."""
        return self.folder / f".{self.name}.lock"

    @property
    def matrices(self) -> Path:
        """The folder of the finished matrices, until they are added to the LoRA folder."""
        return self.folder / f".{self.name}.matrices"

    @property
    def previews(self) -> Path:
        """The folder of previews."""
        return self.folder / f"{self.name}-previews"

    def preview(self, step: int) -> Path:
        """Return the path of the preview after a step."""
        return self.previews / f"step-{step:06}.wav"

    def existing_previews(self) -> list[Path]:
        """Return the previews that exist."""
        return sorted(self.previews.glob("step-*.wav"))


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of progress.

    Attributes:
        read: Number of sounds that have been read.
        step: Training steps that are done.
        loss: Loss of the latest step.
        mean_loss: Mean loss over the same choices of sounds and noise at each measurement.
        preview: Path of a preview.
        is_finished: The matrices are written.
    """

    read: int = 0
    step: int = 0
    loss: float | None = None
    mean_loss: float | None = None
    preview: str = ""
    is_finished: bool = False


def find_sounds(folder: Path) -> tuple[LabelledSound, ...]:
    """Return the sounds in a folder and below it, in alphabetical order, each with its caption.

    Raises:
        BadRequest: It has none, or too many, or a caption can't be read.
        OSError: The folder, or one in it, can't be read.
    """
    endings = ", ".join(sorted(SOUND_SUFFIXES))
    if not folder.is_dir():
        raise BadRequest(f"{folder} isn't a folder; name one with sounds ({endings})")
    files = _sound_files(folder)
    if not files:
        raise BadRequest(f"{folder} has no sounds ({endings})")
    if len(files) > MAX_SOUNDS:
        raise BadRequest(f"{folder} has {len(files)} sounds, {MAX_SOUNDS} are read at most; name a part of it")
    return tuple(
        LabelledSound(path=str(path.absolute()), caption=caption_of(path), size=path.stat().st_size) for path in files
    )


def _sound_files(folder: Path) -> list[Path]:
    """Return the sounds below a folder; hidden files and folders are left out."""

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(parent, name) for name in names if not name.startswith("."))
        files += [path for path in visible if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()]
    return sorted(files)


def caption_of(path: Path) -> str:
    """Return a sound's caption: the text of the .txt file of the same name, or the words of its own name.

    Raises:
        BadRequest: The text can't be read, is empty or too long.
    """
    sidecar = path.with_suffix(".txt")
    if not sidecar.is_file():
        return caption_of_name(path.stem)
    try:
        with sidecar.open(encoding="utf-8-sig") as file:
            content = file.read(MAX_CAPTION_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{sidecar} can't be read as UTF-8 ({error}); save it again as UTF-8") from error
    text = " ".join(content.split())
    if not text:
        raise BadRequest(f"{sidecar} is empty; write a caption into it, or delete it to use the words of the name")
    if len(content) > MAX_CAPTION_CHARACTERS:
        raise BadRequest(f"{sidecar} has more than {MAX_CAPTION_CHARACTERS} characters; write a shorter caption")
    return text


def caption_of_name(stem: str) -> str:
    """Return the words of a file's name, without numbers and separators.

    >>> caption_of_name("Warm_Pad-03"), caption_of_name("808")
    ('warm pad', '808')
    """
    words = [word for word in re.split(r"[\W_]+", stem.lower()) if word and not word.isdigit()]
    return " ".join(words) or (stem if is_utf8(stem) else printable(stem))
