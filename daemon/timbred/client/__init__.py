"""timbred from Python.

    from timbred.client import Timbred

    with Timbred() as timbred:
        sound = timbred.generate("a deep punchy kick drum", seconds=1, seed=7)
        sound.samples    # numpy, shape (frames, channels), float32

`AsyncTimbred` is the same for asyncio. Errors are those of `timbred.errors`, by the daemon's own codes, and the three
in `trouble`.
"""

from timbred.client.async_client import AsyncTimbred
from timbred.client.connection import DaemonAddress, DaemonNotFound, DaemonTimeout, RequestCancelled
from timbred.client.sound import Sound
from timbred.client.sync_client import Timbred

__all__ = ["AsyncTimbred", "DaemonAddress", "DaemonNotFound", "DaemonTimeout", "RequestCancelled", "Sound", "Timbred"]
