"""All transports together: bound in order, and stopped so that pending answers are still sent."""

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

LAST_ANSWERS_TIMEOUT_S = 0.5
"""Seconds that slow clients have to read their last answers, on each transport."""


class Transports:
    """The daemon's servers. `outbox` may be used before `start`; events sent then are lost.

    Settings used: `host`, `osc.port`, `zmq.requests`, `zmq.events`, `http.port`, `takes.folder`.
    """

    def __init__(self, config: Config, supervisor: Supervisor | None = None) -> None:
        self._config = config
        self._supervisor = supervisor or Supervisor()
        self._router = Router()
        self._memory = InProcessTransport(self._router)
        self._sockets: _Sockets | None = None

    @property
    def outbox(self) -> Outbox:
        """The outbox that the daemon's parts send events to."""
        return self._router

    def client(self) -> InProcessClient:
        """Make a client in this process."""
        return self._memory.client()

    async def start(self, inbox: Inbox, library: Library | None = None, space: AddressSpace | None = None) -> Ports:
        """Bind every port, then accept requests.

        Args:
            inbox: Receives the requests.
            library: Source of the panel's history; None leaves it empty.
            space: Answers OSCQuery's questions about addresses; None refuses them.

        Raises:
            BadRequest: A port can't be bound; names the setting and the remedy. No port stays bound.
        """
        warn_beyond_loopback(self._config["host"])
        self._sockets = _Sockets(self._router, self._config, library, space, self._supervisor)
        self._router.http_port = self._sockets.ports.http
        self._router.open(inbox)
        await self._sockets.start()
        return self._sockets.ports

    async def stop(self) -> None:
        """Stop accepting requests, send pending answers and close, in about two seconds at most."""
        sockets, self._sockets = self._sockets, None
        if sockets is None:
            return
        await sockets.stop_reading()
        self._router.close()
        await sockets.close()


class _Sockets:
    """All bound sockets with their servers."""

    def __init__(
        self,
        router: Router,
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
            self._requests = Requests(router, self._context, host, config["zmq.requests"], supervisor)
            self._events = Events(self._context, host, config["zmq.events"])
            undo.pop_all()
        router.publish_to(self._events)
        self._udp = OscUdp(router, udp)
        self._tcp = OscTcp(router, tcp, supervisor)
        self._http = HttpServer(router, web, host, config.takes_folder, library, space, supervisor)
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
        await asyncio.gather(self._tcp.close(LAST_ANSWERS_TIMEOUT_S), self._http.close(LAST_ANSWERS_TIMEOUT_S))
        self._requests.close(LAST_ANSWERS_TIMEOUT_S)
        self._events.close(LAST_ANSWERS_TIMEOUT_S)
        # waits until its sockets have sent their messages, at most LAST_ANSWERS_TIMEOUT_S
        await asyncio.to_thread(self._context.term)
