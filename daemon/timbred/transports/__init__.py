"""How requests come in and events go out: OSC, ZeroMQ, HTTP and WebSocket, and clients in memory."""

from timbred.transports.ports import Ports
from timbred.transports.transports import Transports

__all__ = ["Ports", "Transports"]
