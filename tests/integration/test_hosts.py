"""Musicians' own programs talk to the real daemon: oscsend and oscdump, Node, Pd, sclang."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.hosts import Program, running
from tests.integration.clients import UdpClient
from tests.integration.daemons import DaemonProcess
from tests.npm import InstallNpm
from tests.patience import TIMEOUT_S

RequireHost = Callable[[str], str]

NODE = """
const osc = require("osc");
const port = new osc.TCPSocketPort({ address: "127.0.0.1", port: Number(process.argv[2]), useSLIP: true });
const say = (name, ...args) => port.send({ address: "/timbred/" + name, args });
const text = (...values) => values.map((value) => ({ type: "s", value }));
port.on("message", ({ address, args }) => {
  console.log(JSON.stringify([address, ...args]));
  if (address === "/timbred/welcome") say("generate", ...text("n1", "warm", "pad", "@seconds", "0.5", "@steps", "2"));
  if (address === "/timbred/done") say("generate", ...text("n2", "warm pad", "@seconds"), { type: "i", value: -1 });
  if (address === "/timbred/fail") port.close();
});
port.on("ready", () => say("hello", ...text("node")));
port.open();
"""

PD_PATCH = """#N canvas 0 0 640 480 10;
#X obj 20 20 loadbang;
#X msg 20 50 connect 127.0.0.1 {daemon};
#X obj 20 80 t b a;
#X obj 200 80 netsend -u -b;
#X msg 20 200 7 warm analog 808 pad @seconds 0.5 @steps 2 @seed 3 @port {own};
#X obj 20 230 oscformat timbred generate;
#X obj 20 260 list prepend send;
#X obj 20 290 list trim;
#X obj 300 200 netreceive -u -b {own};
#X obj 300 230 oscparse;
#X obj 300 260 list trim;
#X obj 300 290 print heard;
#X connect 0 0 1 0;
#X connect 1 0 2 0;
#X connect 2 0 4 0;
#X connect 2 1 3 0;
#X connect 4 0 5 0;
#X connect 5 0 6 0;
#X connect 6 0 7 0;
#X connect 7 0 3 0;
#X connect 8 0 9 0;
#X connect 9 0 10 0;
#X connect 10 0 11 0;
"""

SCLANG = """
var daemon = NetAddr("127.0.0.1", {port});
#[queued, started, progress, take, done, fail].do {{ |name|
    OSCdef(name, {{ |message|
        "heard % %".format(message.size - 1, message[..3].join(" ")).postln;
        if(message[0] == '/timbred/done') {{
            daemon.sendMsg('/timbred/generate', "sc2", "warm pad", "@seconds", -1);
        }};
        if(message[0] == '/timbred/fail') {{ 0.exit }};
    }}, "/timbred/" ++ name);
}};
daemon.sendMsg('/timbred/generate', 12, "warm analog pad", "@seconds", 0.5, "@steps", 2, "@loop", true);
"""


def until_it_listens(client: UdpClient, program: Program, port: int) -> None:
    """Oscdump says nothing when it is ready, so it is asked until it hears."""
    while not program.spoken.matching("/timbred/pong"):
        assert program.process.poll() is None, program.spoken.lines
        client.say("ping", "@port", port)
        time.sleep(0.02)


@pytest.mark.usefixtures("idle")
def test_hosts_oscsend_and_oscdump_make_a_request(
    daemon: DaemonProcess, client: UdpClient, require_host: RequireHost
) -> None:
    oscsend, oscdump, port = require_host("oscsend"), require_host("oscdump"), free_port()

    def send(url: str, address: str, types: str, *arguments: str) -> None:
        subprocess.run([oscsend, *url.split(), address, types, *arguments], check=True, timeout=TIMEOUT_S)

    here = f"127.0.0.1 {daemon.osc}"
    with running(oscdump, "-L", str(port)) as dump:
        until_it_listens(client, dump, port)
        ask = ("3", "808", "kick", "drum", "@seconds", "0.5", "@steps", "2", "@port", str(port))
        send(here, "/timbred/generate", "iisssfsisi", *ask)
        dump.spoken.until("/timbred/done")
        said = [line[line.index("/timbred/") :] for line in dump.spoken.matching("/timbred/(?!pong)")]
        assert said[0].startswith("/timbred/queued iif 3 0 ")
        assert said[1] == '/timbred/started is 3 "hollow"'
        assert all(line.startswith("/timbred/progress ifiif 3 ") for line in said[2:-2])
        assert said[-2].startswith('/timbred/take iisfiiifs 3 0 "')
        assert said[-1].startswith('/timbred/done iis 3 1 "')
        send(here, "/timbred/sing", "si", "@port", str(port))
        dump.spoken.until('/timbred/fail sss "sing" "bad-request"')
        # liblo frames TCP in the older way, with sizes
        with running(oscsend, f"osc.tcp://127.0.0.1:{daemon.osc}/", "/timbred/dance", "si", "@port", str(port)):
            dump.spoken.until('/timbred/fail sss "dance" "bad-request"')


def test_hosts_node_makes_a_request_over_tcp(
    daemon: DaemonProcess, require_host: RequireHost, install_npm: InstallNpm
) -> None:
    node, folder = require_host("node"), install_npm("osc@2.4.5")
    (folder / "talk.js").write_text(NODE, "utf-8")
    with running(node, "talk.js", str(daemon.osc), folder=folder) as talk:
        talk.spoken.until("/timbred/fail")
        assert talk.process.wait(TIMEOUT_S) == 0
        said = [json.loads(line) for line in talk.spoken.lines]
    names = [one[0].removeprefix("/timbred/") for one in said if one[0] != "/timbred/progress"]
    assert names == ["welcome", "queued", "started", "take", "done", "fail"]
    assert said[-1][1:3] == ["n2", "bad-request"]


@pytest.mark.usefixtures("idle")
def test_hosts_pd_makes_a_request_with_netsend_and_netreceive(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    pd, patch = require_host("pd"), tmp_path / "talk.pd"
    patch.write_text(PD_PATCH.format(daemon=daemon.osc, own=free_port()), "utf-8")
    with running(pd, "-nogui", "-noaudio", "-nomidi", "-open", str(patch)) as program:
        program.spoken.until("heard: timbred done")
        said = [line.removeprefix("heard: timbred ") for line in program.spoken.matching("^heard: ")]
    assert said[0].startswith("queued 7 0 ")
    assert said[1] == "started 7 hollow"
    assert all(line.startswith("progress 7 ") for line in said[2:-2])
    assert said[-2].startswith(f"take 7 0 {daemon.takes}")
    assert " 0.5 48000 1 3 " in said[-2]
    assert said[-1].startswith(f"done 7 1 {daemon.takes}")


@pytest.mark.usefixtures("idle")
def test_hosts_sclang_makes_a_request_with_netaddr_and_oscdef(
    daemon: DaemonProcess, require_host: RequireHost, tmp_path: Path
) -> None:
    sclang, script = require_host("sclang"), tmp_path / "talk.scd"
    script.write_text(f"({SCLANG.format(port=daemon.osc)})", "utf-8")
    with running(sclang, "-D", str(script), folder=tmp_path) as program:
        program.spoken.until("^heard 3 /timbred/fail")
        said = [line.removeprefix("heard ") for line in program.spoken.matching("^heard ")]
    assert said[0].startswith("3 /timbred/queued 12 0")
    assert said[1] == "2 /timbred/started 12 hollow"
    assert said[-3].startswith(f"9 /timbred/take 12 0 {daemon.takes}")
    assert said[-2].startswith("3 /timbred/done 12 1")
    assert said[-1].startswith("3 /timbred/fail sc2 bad-request seconds: got -1")
