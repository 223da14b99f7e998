"""All transports together: bound in order, and stopped so that pending answers are still sent.

Clients in the daemon's own process need no sockets: `timbred say` without a daemon uses one, and so do tests.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import zmq.asyncio

from timbred.access.policy import AccessRules, access_rules
from timbred.audio import Clip
from timbred.config import Config
from timbred.protocol import json
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId, Inbox, Outbox
from timbred.protocol.schema import answers, find_request, is_terminal
from timbred.storage.library import Library
from timbred.task_supervision import Supervisor
from timbred.transports.http import HttpServer
from timbred.transports.osc import OscTcp, OscUdp
from timbred.transports.router import Router
from timbred.transports.sockets import (
    Ports,
    is_beyond_loopback,
    osc_pair,
    raise_file_limit,
    tcp_listener,
    warn_of_open_access,
)
from timbred.transports.websocket import AddressSpace
from timbred.transports.zeromq import Events, KeyChecks, Requests


@dataclass
class _PendingAnswer:
    """A pending request: its events so far, and the future of all of them."""

    type: str
    request_id: m.Id
    events: list[m.Event] = field(default_factory=list[m.Event])
    answer: "asyncio.Future[list[m.Event]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def receive(self, event: m.Event) -> None:
        """Store an event if it belongs to this request; resolve the future if it is the last one."""
        if not self._belongs(event):
            return
        self.events.append(event)
        if is_terminal(event):
            self.end()

    def _belongs(self, event: m.Event) -> bool:
        declared = find_request(self.type)
        entry = declared[0] if declared else None
        if isinstance(event, m.Fail) or entry is None or entry.has_id:
            return getattr(event, "id", None) == self.request_id
        return answers(entry, event)

    def end(self) -> None:
        """Resolve the future with the events so far."""
        if not self.answer.done():
            self.answer.set_result(self.events)


class InProcessClient:
    """One client. It sends requests as the keys of their JSON objects, and receives its events.

    `clips` holds the samples that were sent inline, by take id.
    """

    def __init__(self, router: Router, client: ClientId) -> None:
        self.id = client
        self.clips: dict[str, Clip] = {}
        self._router = router
        self._events: asyncio.Queue[m.Event] = asyncio.Queue()
        self._pending: list[_PendingAnswer] = []

    def send(self, **request: Any) -> None:
        """Send a request, as in `send(type="generate", id="a1", prompt="warm analog pad")`."""
        self._router.receive(self.id, json.read_object(request))

    async def request(self, **request: Any) -> list[m.Event]:
        """Send a request and wait for its end; return its events, the terminal one last."""
        incoming = json.read_object(request)
        pending = _PendingAnswer(str(request.get("type")), incoming.id)
        self._pending.append(pending)
        try:
            self._router.receive(self.id, incoming)
            return await pending.answer
        finally:
            self._pending.remove(pending)

    async def next_event(self) -> m.Event:
        """Wait for the next event of any request."""
        return await self._events.get()

    def empty(self) -> bool:
        """Tell if every event so far was returned by `next_event`."""
        return self._events.empty()

    async def __aiter__(self) -> AsyncIterator[m.Event]:
        while True:
            yield await self._events.get()

    def deliver(self, event: m.Event, clip: Clip | None = None) -> None:
        """Receive an event for this client."""
        if clip is not None and isinstance(event, m.Take):
            self.clips[event.take_id] = clip
        self._events.put_nowait(event)
        for pending in list(self._pending):
            pending.receive(event)

    def deliver_list(self, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Receive the answer to a request that is answered by several events."""
        for event in (*events, *([] if end is None else [end])):
            self._events.put_nowait(event)
        for pending in list(self._pending):
            if pending.type == name:
                pending.events.extend(events)
                pending.events.extend([] if end is None else [end])
                pending.end()


class InProcessTransport:
    """The transport of in-process clients, whose ids are `memory:N`."""

    inline = True

    def __init__(self, router: Router) -> None:
        self._router = router
        self._clients: dict[ClientId, InProcessClient] = {}
        self._numbers = itertools.count(1)
        router.attach("memory", self)

    def client(self) -> InProcessClient:
        """Make a new client."""
        client = InProcessClient(self._router, ClientId(f"memory:{next(self._numbers)}"))
        self._clients[client.id] = client
        return client

    def disconnect(self, client: InProcessClient) -> None:
        """Disconnect a client: later events for it are dropped."""
        self._clients.pop(client.id, None)
        self._router.clients.forget(client.id)

    def streams(self, client: ClientId) -> bool:
        """Return True: an in-process client gets events as they happen."""
        _ = client
        return True

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Pass an event to its client."""
        receiver = self._clients.get(client)
        if receiver is not None:
            receiver.deliver(event, clip)

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Pass a list and its end to its client."""
        receiver = self._clients.get(client)
        if receiver is not None:
            receiver.deliver_list(name, events, end)


LAST_ANSWERS_TIMEOUT_S = 0.5
"""Seconds that slow clients have to read their last answers, on each transport."""


class Transports:
    """The daemon's servers. `outbox` may be used before `start`; events sent then are lost.

    Settings used: `host`, `access.*`, `osc.port`, `zmq.requests`, `zmq.events`, `http.port`, `takes.folder`. Beyond
    loopback every transport refuses clients without a key, a token or an allowed address, unless `access.open` is set.
    """

    def __init__(self, config: Config, supervisor: Supervisor | None = None) -> None:
        self._config = config
        self._supervisor = supervisor or Supervisor()
        self._router = Router()
        self._memory = InProcessTransport(self._router)
        self._sockets: _Sockets | None = None
        self._access: AccessRules | None = None

    @property
    def denied(self) -> int:
        """Number of refused attempts to connect or to send a request, since the start."""
        return 0 if self._access is None else self._access.denials.count

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
            BadRequest: A port can't be bound, or keys, token or allowed addresses are missing beyond loopback; names
                the setting and the remedy. No port stays bound.
        """
        self._access = self._demands()
        self._sockets = _Sockets(self._router, self._config, library, space, self._supervisor, self._access)
        self._router.http_port = self._sockets.ports.http
        self._router.open(inbox)
        await self._sockets.start()
        return self._sockets.ports

    def _demands(self) -> AccessRules | None:
        """Return what is demanded of clients; None on loopback, and if access is open."""
        host = self._config["host"]
        if not is_beyond_loopback(host):
            return None
        raise_file_limit()
        if self._config["access.open"]:
            warn_of_open_access(host)
            return None
        return access_rules(self._config)

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
        access: AccessRules | None,
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
            self._keys = None if access is None else KeyChecks(self._context, access, supervisor)
            self._requests = Requests(router, self._context, host, config["zmq.requests"], supervisor, self._keys)
            self._events = Events(self._context, host, config["zmq.events"], self._keys)
            undo.pop_all()
        router.publish_to(self._events)
        self._udp = OscUdp(router, udp, access)
        self._tcp = OscTcp(router, tcp, supervisor, access)
        self._http = HttpServer(router, web, host, config.takes_folder, library, space, supervisor, access)
        self.ports = Ports(
            osc=udp.getsockname()[1],
            requests=self._requests.port,
            events=self._events.port,
            http=web.getsockname()[1],
        )

    async def start(self) -> None:
        self._udp.start()
        await self._tcp.start()
        if self._keys is not None:
            self._keys.start()
        self._requests.start()
        self._http.start()

    async def stop_reading(self) -> None:
        self._udp.stop_reading()
        self._tcp.stop_reading()
        await self._requests.stop_reading()

    async def close(self) -> None:
        self._udp.close()
        await asyncio.gather(self._tcp.close(LAST_ANSWERS_TIMEOUT_S), self._http.close(LAST_ANSWERS_TIMEOUT_S))
        if self._keys is not None:
            await self._keys.close()
        self._requests.close(LAST_ANSWERS_TIMEOUT_S)
        self._events.close(LAST_ANSWERS_TIMEOUT_S)
        # waits until its sockets have sent their messages, at most LAST_ANSWERS_TIMEOUT_S
        await asyncio.to_thread(self._context.term)
