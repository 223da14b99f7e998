"""Python client of timbred.

    from timbred.client import Timbred

    with Timbred() as timbred:
        sound = timbred.generate("a deep punchy kick drum", seconds=1, seed=7)
        sound.samples    # numpy, shape (frames, channels), float32

`AsyncTimbred` has the same methods for asyncio. Errors are the classes of `timbred.errors`, one for each error code of
the daemon, and `ClientClosed`, `DaemonNotFound`, `DaemonTimeout` and `RequestCancelled`.
"""

from timbred.access.keys import CurveKeys
from timbred.client.async_client import AsyncTimbred, Timbred
from timbred.client.connection import (
    ClientClosed,
    DaemonAddress,
    DaemonNotFound,
    DaemonTimeout,
    RequestCancelled,
    Sound,
)

__all__ = [
    "AsyncTimbred",
    "ClientClosed",
    "CurveKeys",
    "DaemonAddress",
    "DaemonNotFound",
    "DaemonTimeout",
    "RequestCancelled",
    "Sound",
    "Timbred",
]
