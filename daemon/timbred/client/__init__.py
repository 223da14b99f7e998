"""timbred from Python.

    from timbred.client import Timbred

    with Timbred() as timbred:
        sound = timbred.generate("a deep punchy kick drum", seconds=1, seed=7)
        sound.samples    # numpy, shape (frames, channels), float32

`AsyncTimbred` is the same for asyncio. Errors are those of `timbred.errors`, by the daemon's own codes, and the three
in `trouble`.
"""

from timbred.client.asynchronous import AsyncTimbred
from timbred.client.finding import Place
from timbred.client.plain import Timbred
from timbred.client.sound import Sound
from timbred.client.trouble import CancelledElsewhere, NoDaemon, Silent

__all__ = ["AsyncTimbred", "CancelledElsewhere", "NoDaemon", "Place", "Silent", "Sound", "Timbred"]
