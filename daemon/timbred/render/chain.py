"""The steps from a model's clip to a finished one, named and in order.

The level is set after resampling and mixing, for both change the peak: what is asked for is the level of
the file's own frames.
"""

from collections.abc import Callable
from typing import NamedTuple

from timbred.clip import Clip
from timbred.render.channels import channels
from timbred.render.dither import dither
from timbred.render.edges import fade, fit, trim
from timbred.render.finite import require_sound
from timbred.render.formats import check_settings
from timbred.render.loop import loop
from timbred.render.loudness import level
from timbred.render.resample import resample
from timbred.render.settings import RenderSettings

__all__ = ["CHAIN", "RenderSettings", "Step", "finish"]


class Step(NamedTuple):
    """One step of the chain: a pure function of the clip and the settings."""

    name: str
    apply: Callable[[Clip, RenderSettings], Clip]


CHAIN: tuple[Step, ...] = (
    Step("trim", trim),
    Step("fit", fit),
    Step("loop", loop),
    Step("fade", fade),
    Step("resample", resample),
    Step("channels", channels),
    Step("level", level),
    Step("dither", dither),
)
"""Every step, in order."""


def finish(clip: Clip, settings: RenderSettings) -> Clip:
    """The clip as the file will hold it: its rate, channels, level, and exactly `settings.frames` frames.

    Raises:
        BadRequest: settings that can't be carried out.
        ModelError: no samples, or values that aren't finite numbers.
    """
    check_settings(settings)
    require_sound(clip)
    for step in CHAIN:
        clip = step.apply(clip, settings)
    return clip
