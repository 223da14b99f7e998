"""OSC packets over a WebSocket, beside the commands that OSCQuery sends as JSON."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from timbred.clip import Clip
from timbred.errors import BadRequest
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId
from timbred.protocol.incoming import Incoming
from timbred.protocol.osc import encode_event, iterate_datagram
from timbred.transports.front import Front, deliver_each
from timbred.transports.listener import REFUSED, Listeners, received
from timbred.transports.origin import is_own_page

_log = logging.getLogger(__name__)


class AddressSpace(Protocol):
    """What can be asked about addresses: `timbred.discovery.oscquery` knows the answers.

    `push` is set by whoever can reach the clients: it sends one of them an OSC packet.
    """

    push: Callable[[ClientId, bytes], None]

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        """The HTTP status and the JSON for a path and what follows its `?`."""
        ...

    def command(self, client: ClientId, text: str) -> None:
        """Take in what a client sent as text.

        Raises:
            BadRequest: it is no command, or can't be carried out.
        """
        ...

    def forget(self, client: ClientId) -> None:
        """The client has gone."""
        ...

    def publish(self, client: ClientId, event: m.Event) -> None:
        """Hear of every event; see `front.Publisher`."""
        ...


class OscWebSockets:
    """The clients of the WebSocket at `/`, each known as `oscquery:N`. Their requests are answered where they came."""

    inline = False

    def __init__(self, front: Front, space: AddressSpace | None) -> None:
        self._front = front
        self._space = space
        self._numbers = itertools.count(1)
        self._listeners = Listeners()
        front.attach("oscquery", self)
        if space is not None:
            space.push = self.push
            front.publish_to(space)

    async def page(self, request: Request) -> Response:
        """A node, or one of its attributes, as JSON."""
        if self._space is None:
            return Response(status_code=404)
        status, content = self._space.answer(request.url.path, request.url.query)
        return Response(content, status, media_type="application/json")

    def streams(self, client: ClientId) -> bool:
        """A WebSocket hears events as they happen."""
        _ = client
        return True

    async def serve(self, made: WebSocket) -> None:
        """One client, from its handshake to its end."""
        if self._space is None or not is_own_page(made) or self._listeners.full:
            _log.warning("a WebSocket at / from %s is refused", made.headers.get("origin", "a program"))
            await made.close(REFUSED)
            return
        await made.accept()
        client = ClientId(f"oscquery:{next(self._numbers)}")
        try:
            with self._listeners.listening(client, made):
                async for message in received(made):
                    await self._front.turns.work(self._steps(client, message, self._space))
                    await self._listeners.read(client)
                    if self._listeners.closing:
                        break
        finally:
            self._space.forget(client)
            self._front.clients.forget(client)

    def _steps(self, client: ClientId, message: str | bytes, space: AddressSpace) -> Iterator[None]:
        """Take in a message, one request at each step."""
        if isinstance(message, str):
            self._take_command(client, message, space)
            return
        for incoming in iterate_datagram(message):
            if incoming.port is None:
                self._front.receive(client, incoming)
            else:
                refusal = BadRequest("port: it is for UDP; here answers come back on the same connection")
                self._front.receive(client, Incoming(refusal, incoming.id))
            yield

    def _take_command(self, client: ClientId, text: str, space: AddressSpace) -> None:
        try:
            space.command(client, text)
        except BadRequest as refusal:
            self._front.receive(client, Incoming(refusal, "oscquery"))

    async def close(self, patience: float) -> None:
        """Send what waits, for at most `patience` seconds, and end every connection."""
        await self._listeners.close(patience)

    def push(self, client: ClientId, packet: bytes) -> None:
        """Send an OSC packet. Never blocks; a client that has gone loses it."""
        self._listeners.put(client, packet)

    def deliver(self, client: ClientId, event: m.Event, clip: Clip | None) -> None:
        """Send an event as one OSC packet."""
        _ = clip
        self.push(client, encode_event(event))

    def deliver_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        """Send each event, then the end."""
        _ = name
        deliver_each(self.deliver, client, events, end)
