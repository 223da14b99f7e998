"""Classes of sounds that can be derived from a caption: the labels for the training of the text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timbred.models.pocket import FORMS
from training.pocket.effects import EFFECTS
from training.pocket.sounds import HARD, SOFT, Sound
from training.pocket.vocabulary import CHOICES

NO_CLASS = -100
"""Class of an attribute that a sound doesn't have; it is ignored in losses and figures."""

TEMPO_CENTRE, TEMPO_OCTAVES = 100.0, 1.0


@dataclass
class Labels:
    """Classes of several sounds.

    Attributes:
        classes: by name of CHOICES, (sounds,) int64, NO_CLASS for attributes that don't apply.
        effects: (sounds, EFFECTS) float32.
        tempo: (sounds,) float32 octaves from TEMPO_CENTRE; NaN without a tempo.
    """

    classes: dict[str, NDArray[np.int64]]
    effects: NDArray[np.float32]
    tempo: NDArray[np.float32]


def _class(name: str, value: str | None) -> int:
    return CHOICES[name].index(value) if value in CHOICES[name] else NO_CLASS


def _classes(sound: Sound) -> dict[str, int]:
    touch = sound.velocity
    named = sound.form in ("note", "chord", "arpeggio", "scale") and sound.note is not None
    return {
        "kind": _class("kind", sound.kind),
        "form": FORMS.index(sound.form),
        "chord": _class("chord", sound.chord),
        "scale": _class("scale", sound.scale),
        "style": _class("style", sound.style),
        "touch": NO_CLASS if touch is None else 0 if touch <= SOFT else 2 if touch >= HARD else 1,
        "register": sound.register + 1 if sound.form == "note" else NO_CLASS,
        "note": sound.note if sound.form == "note" and sound.note is not None else NO_CLASS,
        "root": sound.note % 12 if named and sound.note is not None else NO_CLASS,
    }


def labels_of(sounds: Sequence[Sound]) -> Labels:
    """Return the classes of sounds."""
    rows = [_classes(sound) for sound in sounds]
    classes = {name: np.array([row[name] for row in rows], np.int64) for name in CHOICES}
    effects = np.array([[name in sound.effects for name in EFFECTS] for sound in sounds], np.float32)
    tempo = [np.nan if sound.bpm is None else np.log2(sound.bpm / TEMPO_CENTRE) for sound in sounds]
    return Labels(classes, effects, np.array(tempo, np.float32))
