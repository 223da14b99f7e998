"""Whether there is sound at all: frames, of numbers."""

import numpy as np

from timbred.clip import Clip
from timbred.errors import ModelError


def require_sound(clip: Clip) -> None:
    """Refuse a clip that no file should hold.

    Raises:
        ModelError: no frames, no channels, or values that aren't finite numbers.
    """
    if clip.samples.size == 0:
        raise ModelError("the model gave no sound (0 samples); ask for a longer one")
    if not np.isfinite(clip.samples).all():
        raise ModelError("the model gave values that aren't numbers; try another seed, or lower the guidance")
