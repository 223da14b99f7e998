"""zeroconf: another process sees the daemon come and go, where it can be reached and nowhere else."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from tests.hosts import Program, running
from tests.integration.conftest import StartDaemon
from tests.npm import InstallNpm
from timbred.discovery.mdns import AnnouncedAddress, MdnsAnnouncement

BROWSER = """
import json, sys, threading
from zeroconf import IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

def seen(zeroconf, service_type, name, state_change):
    if sys.argv[1] not in name:
        return
    told = {"state": state_change.name, "type": service_type, "name": name}
    if state_change is ServiceStateChange.Added:
        info = zeroconf.get_service_info(service_type, name, 5000)
        told["addresses"], told["port"] = info.parsed_addresses(), info.port
        told["text"] = {key.decode(): value.decode() for key, value in info.properties.items()}
    print(json.dumps(told), flush=True)

zeroconf = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
browser = ServiceBrowser(zeroconf, ["_oscjson._tcp.local.", "_osc._udp.local."], handlers=[seen])
print("looking", flush=True)
threading.Event().wait()
"""


@contextmanager
def browsing(name: str) -> Generator[Program]:
    with running(sys.executable, "-c", BROWSER, name) as program:
        program.spoken.until("looking")
        yield program


def reported(program: Program, state: str, service: str) -> dict[str, object]:
    line = program.spoken.until(f'"state": "{state}", "type": "{service}').string
    return json.loads(line)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other daemon on this machine has."""
    return f"timbred-{abs(hash(request.node.nodeid))}"


def test_mdns_announces_the_listening_addresses_and_withdraws_them(start_daemon: StartDaemon, name: str) -> None:
    with browsing(name) as browser:
        daemon = start_daemon("discovery.announce=1", f"discovery.name={name}")
        query, osc = reported(browser, "Added", "_oscjson._tcp.local."), reported(browser, "Added", "_osc._udp.local.")
        called = f"{name}-{daemon.http}"
        assert (query["name"], osc["name"]) == (f"{called}._oscjson._tcp.local.", f"{called}._osc._udp.local.")
        assert (query["addresses"], query["port"]) == (["127.0.0.1"], daemon.http)
        assert (osc["addresses"], osc["port"]) == (["127.0.0.1"], daemon.osc)
        assert query["text"] == {
            "txtvers": "1",
            "zmq.requests": str(daemon.requests),
            "zmq.events": str(daemon.events),
        }
        daemon.signal()
        assert daemon.ended() == 0
        reported(browser, "Removed", "_oscjson._tcp.local.")
        reported(browser, "Removed", "_osc._udp.local.")


def test_mdns_gives_two_daemons_of_one_name_different_names(start_daemon: StartDaemon, name: str) -> None:
    with browsing(name) as browser:
        first = start_daemon("discovery.announce=1", f"discovery.name={name}")
        second = start_daemon("discovery.announce=1", f"discovery.name={name}")
        for daemon in (first, second):
            browser.spoken.until(f'"name": "{name}-{daemon.http}._oscjson._tcp.local.".*"port": {daemon.http}')


FIND_AND_WALK = """
const Bonjour = require("bonjour-service").default;
const { DiscoveredService } = require("oscquery/dist/lib/osc_query_discovery");
const bonjour = new Bonjour({ interface: "127.0.0.1", bind: "0.0.0.0" });
bonjour.find({ type: "oscjson", protocol: "tcp" }, async (found) => {
  if (!found.name.startsWith(process.argv.at(-1))) return;
  const service = new DiscoveredService(found.addresses[0], found.port);
  await service.update();
  console.log(JSON.stringify({ port: found.port, host: service.hostInfo, methods: service.flat().length }));
  bonjour.destroy();
});
console.log("looking");
"""


def test_mdns_announcement_is_found_and_read_by_npm(
    start_daemon: StartDaemon, name: str, require_host: Callable[[str], str], install_npm: InstallNpm
) -> None:
    node, folder = require_host("node"), install_npm("oscquery@1.1.1")
    with running(node, "-e", FIND_AND_WALK, name, folder=folder) as program:
        program.spoken.until("looking")
        daemon = start_daemon("discovery.announce=1", f"discovery.name={name}")
        found = json.loads(program.spoken.until('"methods"').string)
        assert (found["port"], found["host"]["oscPort"]) == (daemon.http, daemon.osc)
        assert found["host"]["name"] == name
        assert found["methods"] > 50


def test_mdns_is_off_by_default(start_daemon: StartDaemon, name: str) -> None:
    with browsing(name) as browser:
        quiet = start_daemon(f"discovery.name={name}")
        assert quiet.process.poll() is None
        quiet.signal()
        assert quiet.ended() == 0
        loud = start_daemon("discovery.announce=1", f"discovery.name={name}")
        found = reported(browser, "Added", "_oscjson._tcp.local.")
        assert found["port"] == loud.http
        assert len(browser.spoken.matching("_oscjson")) == 1


async def test_mdns_does_not_delay_on_an_unreachable_network(caplog: pytest.LogCaptureFixture) -> None:
    # an address that is set apart for documents (RFC 5737)
    announcement = MdnsAnnouncement("nowhere", AnnouncedAddress("198.51.100.7", 1, 2, 3, 4))
    announcement.start()
    assert not await announcement.is_announced()
    await announcement.stop(1.0)
    assert "not announced" in caplog.text
