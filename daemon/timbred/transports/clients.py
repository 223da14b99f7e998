"""Who is who: which client a request comes from, and who wants to hear everybody's events. Does no I/O.

A client is the place that its answers go to. A sender that resends from another source port but asks for
answers at the same place is therefore the same client.
"""

from collections import OrderedDict

from timbred.protocol.exchange import ClientId

REMEMBERED = 4096
"""Senders that said `hello` and are remembered; those silent for longest are forgotten first."""

LISTENERS = 256
"""Clients that hear everybody's events at one time; the one that asked first gives way."""

Address = tuple[str, int]
"""Host and port."""


def udp_client(host: str, port: int) -> ClientId:
    """The client whose answers go to `host` and `port` as OSC over UDP.

    >>> udp_client("127.0.0.1", 9000)
    'udp:127.0.0.1:9000'
    """
    return ClientId(f"udp:{host}:{port}")


def udp_address(client: ClientId) -> Address:
    """Where the answers of a UDP client go.

    >>> udp_address(udp_client("::1", 9000))
    ('::1', 9000)
    """
    host, _, port = client.removeprefix("udp:").rpartition(":")
    return host, int(port)


def tcp_client(host: str, port: int) -> ClientId:
    """The client at the other end of a TCP connection."""
    return ClientId(f"tcp:{host}:{port}")


def zmq_client(routing_id: bytes) -> ClientId:
    """The client that ZeroMQ knows by `routing_id`.

    >>> zmq_client(bytes([0, 0x6b]))
    'zmq:006b'
    """
    return ClientId(f"zmq:{routing_id.hex()}")


def scheme(client: ClientId) -> str:
    """The transport that a client is reached by: `udp`, `tcp`, `zmq`, `ws`, `http`, `memory`."""
    return client.partition(":")[0]


class Clients:
    """Where UDP senders want their answers, what clients call themselves, and who listens."""

    def __init__(self, remembered: int = REMEMBERED, listeners: int = LISTENERS) -> None:
        self._answers_at: OrderedDict[Address, int] = OrderedDict()
        self._names: OrderedDict[ClientId, str] = OrderedDict()
        self._listeners: OrderedDict[ClientId, None] = OrderedDict()
        self._remembered = remembered
        self._most_listeners = listeners

    def udp_sender(self, source: Address, port: int | None) -> ClientId:
        """Who a UDP request is from: `port` is the one that the request itself names."""
        if port is None and source in self._answers_at:
            self._answers_at.move_to_end(source)
            port = self._answers_at[source]
        return udp_client(source[0], source[1] if port is None else port)

    def say_hello(self, source: Address, port: int | None) -> None:
        """From now on this UDP sender's answers go to `port` on its host; None: back to the source port."""
        self._answers_at.pop(source, None)
        if port is not None and port != source[1]:
            self._answers_at[source] = port
            _forget_oldest(self._answers_at, self._remembered)

    def call(self, client: ClientId, name: str) -> None:
        """Remember what a client calls itself."""
        self._names.pop(client, None)
        if name:
            self._names[client] = name
            _forget_oldest(self._names, self._remembered)

    def named(self, client: ClientId) -> str:
        """A client as the log shows it: its id, and its own name where it said one."""
        name = self._names.get(client)
        return client if name is None else f"{client} ({name})"

    def listen(self, client: ClientId, on: bool) -> None:
        """Begin or end sending everybody's events to this client."""
        self._listeners.pop(client, None)
        if on:
            self._listeners[client] = None
            _forget_oldest(self._listeners, self._most_listeners)

    @property
    def listeners(self) -> tuple[ClientId, ...]:
        """Clients that hear everybody's events, in the order in which they asked."""
        return tuple(self._listeners)

    def forget(self, client: ClientId) -> None:
        """The client has gone: its connection is closed."""
        self._names.pop(client, None)
        self._listeners.pop(client, None)


def _forget_oldest(
    entries: OrderedDict[Address, int] | OrderedDict[ClientId, str] | OrderedDict[ClientId, None], most: int
) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
