"""All transports together: bound in order, stopped so that what is to be said is still said."""

import asyncio
from contextlib import ExitStack

import zmq.asyncio

from timbred.config import Config
from timbred.protocol.boundary import Inbox, Outbox
from timbred.storage.library import Library
from timbred.task_supervision import Supervisor
from timbred.transports.http import HttpServer
from timbred.transports.in_process import InProcessClient, InProcessTransport
from timbred.transports.osc import OscTcp, OscUdp
from timbred.transports.router import Router
from timbred.transports.sockets import Ports, osc_pair, tcp_listener, warn_beyond_loopback
from timbred.transports.websocket import AddressSpace
from timbred.transports.zeromq import Events, Requests

FAREWELL = 0.5
"""Seconds that clients who read slowly get for their last answers, on each transport."""


class Transports:
    """Everything that listens. `outbox` may be handed out before `start`; what is sent then is lost.

    Settings used: `host`, `osc.port`, `zmq.requests`, `zmq.events`, `http.port`, `takes.folder`.
    """

    def __init__(self, config: Config, supervisor: Supervisor | None = None) -> None:
        self._config = config
        self._supervisor = supervisor or Supervisor()
        self._front = Router()
        self._memory = InProcessTransport(self._front)
        self._sockets: _Sockets | None = None

    @property
    def outbox(self) -> Outbox:
        """Where the daemon's parts send events."""
        return self._front

    def client(self) -> InProcessClient:
        """A client inside this process."""
        return self._memory.client()

    async def start(self, inbox: Inbox, library: Library | None = None, space: AddressSpace | None = None) -> Ports:
        """Bind every port, then take requests. `library` is what the panel shows as history; `space` answers what is
        asked about addresses (OSCQuery).

        Raises:
            BadRequest: a port is taken or may not be had; names the setting and what to do. Nothing stays
                bound.
        """
        warn_beyond_loopback(self._config["host"])
        self._sockets = _Sockets(self._front, self._config, library, space, self._supervisor)
        self._front.http_port = self._sockets.ports.http
        self._front.open(inbox)
        await self._sockets.start()
        return self._sockets.ports

    async def stop(self) -> None:
        """Take no more requests, send what waits, close. Takes at most about two seconds."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        await sockets.stop_reading()
        self._front.close()
        await sockets.close()


class _Sockets:
    """The bound sockets, from the first to the last."""

    def __init__(
        self,
        front: Router,
        config: Config,
        library: Library | None,
        space: AddressSpace | None,
        supervisor: Supervisor,
    ) -> None:
        host = config["host"]
        with ExitStack() as undo:
            udp, tcp = osc_pair("osc.port", host, config["osc.port"])
            undo.callback(udp.close)
            undo.callback(tcp.close)
            web = tcp_listener("http.port", host, config["http.port"])
            undo.callback(web.close)
            self._context = zmq.asyncio.Context()
            undo.callback(self._context.destroy, linger=0)
            self._requests = Requests(front, self._context, host, config["zmq.requests"], supervisor)
            self._events = Events(self._context, host, config["zmq.events"])
            undo.pop_all()
        front.publish_to(self._events)
        self._udp = OscUdp(front, udp)
        self._tcp = OscTcp(front, tcp, supervisor)
        self._http = HttpServer(front, web, host, config.takes_folder, library, space, supervisor)
        self.ports = Ports(
            osc=udp.getsockname()[1],
            requests=self._requests.port,
            events=self._events.port,
            http=web.getsockname()[1],
        )

    async def start(self) -> None:
        self._udp.start()
        await self._tcp.start()
        self._requests.start()
        self._http.start()

    async def stop_reading(self) -> None:
        self._udp.stop_reading()
        self._tcp.stop_reading()
        await self._requests.stop_reading()

    async def close(self) -> None:
        self._udp.close()
        await asyncio.gather(self._tcp.close(FAREWELL), self._http.close(FAREWELL))
        self._requests.close(FAREWELL)
        self._events.close(FAREWELL)
        # the context waits for what its sockets still send, which may take up to FAREWELL
        await asyncio.to_thread(self._context.term)
