"""Identities of clients, and what is stored of each: its answer port, its name, and whether it listens to all events.

A client is identified by the place that its answers go to. A sender that uses another source port but asks for answers
at the same place is therefore the same client.
"""

from collections import OrderedDict

from timbred.protocol.boundary import ClientId

MAX_REMEMBERED_SENDERS = 4096
"""UDP senders whose `hello` is remembered; the least recently used is forgotten first."""

MAX_LISTENERS = 256
"""Clients that listen to all events at the same time; the one that asked first is removed first."""

Address = tuple[str, int]
"""Host and port."""


def udp_client(host: str, port: int) -> ClientId:
    """Return the client whose answers go to `host` and `port` as OSC over UDP.

    >>> udp_client("127.0.0.1", 9000)
    'udp:127.0.0.1:9000'
    """
    return ClientId(f"udp:{host}:{port}")


def udp_address(client: ClientId) -> Address:
    """Return the address that the answers of a UDP client go to.

    >>> udp_address(udp_client("::1", 9000))
    ('::1', 9000)
    """
    host, _, port = client.removeprefix("udp:").rpartition(":")
    return host, int(port)


def tcp_client(host: str, port: int) -> ClientId:
    """Return the client at the other end of a TCP connection."""
    return ClientId(f"tcp:{host}:{port}")


def zmq_client(routing_id: bytes) -> ClientId:
    """Return the client with a ZeroMQ routing id.

    >>> zmq_client(bytes([0, 0x6b]))
    'zmq:006b'
    """
    return ClientId(f"zmq:{routing_id.hex()}")


def scheme(client: ClientId) -> str:
    """Return the transport of a client: `udp`, `tcp`, `zmq`, `ws`, `oscquery`, `http` or `memory`."""
    return client.partition(":")[0]


class Clients:
    """Answer ports of UDP senders, names of clients, and the clients that listen to all events. Does no I/O."""

    def __init__(self, max_senders: int = MAX_REMEMBERED_SENDERS, max_listeners: int = MAX_LISTENERS) -> None:
        self._answers_at: OrderedDict[Address, int] = OrderedDict()
        self._names: OrderedDict[ClientId, str] = OrderedDict()
        self._listeners: OrderedDict[ClientId, None] = OrderedDict()
        self._max_senders = max_senders
        self._max_listeners = max_listeners

    def udp_sender(self, source: Address, port: int | None) -> ClientId:
        """Return the client that sent a UDP request; `port` is the request's own `@port`."""
        if port is None and source in self._answers_at:
            self._answers_at.move_to_end(source)
            port = self._answers_at[source]
        return udp_client(source[0], source[1] if port is None else port)

    def say_hello(self, source: Address, port: int | None) -> None:
        """Send the answers of a UDP sender to `port` on its host from now on; None means its source port."""
        self._answers_at.pop(source, None)
        if port is not None and port != source[1]:
            self._answers_at[source] = port
            _forget_oldest(self._answers_at, self._max_senders)

    def call(self, client: ClientId, name: str) -> None:
        """Store the name that a client gives itself; an empty one removes it."""
        self._names.pop(client, None)
        if name:
            self._names[client] = name
            _forget_oldest(self._names, self._max_senders)

    def named(self, client: ClientId) -> str:
        """Return a client as the log shows it: its id, and its name if it has one."""
        name = self._names.get(client)
        return client if name is None else f"{client} ({name})"

    def listen(self, client: ClientId, on: bool) -> None:
        """Start or stop sending all events to this client."""
        self._listeners.pop(client, None)
        if on:
            self._listeners[client] = None
            _forget_oldest(self._listeners, self._max_listeners)

    @property
    def listeners(self) -> tuple[ClientId, ...]:
        """Clients that listen to all events, in the order in which they asked."""
        return tuple(self._listeners)

    def forget(self, client: ClientId) -> None:
        """Remove what is stored of a client whose connection is closed."""
        self._names.pop(client, None)
        self._listeners.pop(client, None)


def _forget_oldest(
    entries: OrderedDict[Address, int] | OrderedDict[ClientId, str] | OrderedDict[ClientId, None], limit: int
) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)
