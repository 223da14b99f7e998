"""Identities of clients, and what is stored of each."""

from timbred.protocol.boundary import ClientId
from timbred.transports.clients import Clients, scheme, tcp_client, udp_address, udp_client


def test_udp_client_is_where_its_answers_go() -> None:
    clients = Clients()
    assert clients.udp_sender(("127.0.0.1", 5000), None) == udp_client("127.0.0.1", 5000)
    assert clients.udp_sender(("127.0.0.1", 5000), 9000) == udp_client("127.0.0.1", 9000)
    assert clients.udp_sender(("127.0.0.1", 5001), 9000) == udp_client("127.0.0.1", 9000)


def test_clients_hello_redirects_answers_until_the_next_hello() -> None:
    clients = Clients()
    clients.say_hello(("127.0.0.1", 5000), 9000)
    assert clients.udp_sender(("127.0.0.1", 5000), None) == udp_client("127.0.0.1", 9000)
    assert clients.udp_sender(("127.0.0.1", 5000), 9001) == udp_client("127.0.0.1", 9001)
    assert clients.udp_sender(("127.0.0.1", 5001), None) == udp_client("127.0.0.1", 5001)
    clients.say_hello(("127.0.0.1", 5000), None)
    assert clients.udp_sender(("127.0.0.1", 5000), None) == udp_client("127.0.0.1", 5000)


def test_clients_keep_active_senders_during_a_flood_of_new_ones() -> None:
    clients = Clients(max_senders=10)
    for port in range(1000, 2000):
        clients.say_hello(("127.0.0.1", port), 9000)
        assert clients.udp_sender(("127.0.0.1", 1000), None) == udp_client("127.0.0.1", 9000)
    assert clients.udp_sender(("127.0.0.1", 1001), None) == udp_client("127.0.0.1", 1001)


def test_clients_bound_and_forget_listeners() -> None:
    clients = Clients(max_listeners=2)
    first, second, third = (ClientId(f"ws:{number}") for number in range(3))
    for client in (first, second, third, third):
        clients.listen(client, True)
    assert clients.listeners == (second, third)
    clients.listen(second, False)
    clients.forget(third)
    assert clients.listeners == ()


def test_clients_have_names_for_the_log() -> None:
    clients = Clients()
    client = tcp_client("127.0.0.1", 5000)
    clients.call(client, "live")
    assert clients.named(client) == "tcp:127.0.0.1:5000 (live)"
    clients.call(client, "")
    assert clients.named(client) == client


def test_scheme_of_an_id_selects_the_transport() -> None:
    assert udp_address(udp_client("::1", 9000)) == ("::1", 9000)
    assert scheme(udp_client("::1", 9000)) == "udp"
