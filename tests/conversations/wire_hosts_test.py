"""Stock OSC programs talk to the real transports: liblo's oscsend and oscdump, and npm's osc under Node."""

import asyncio
import contextlib
import json
import os
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from tests.transports.stage import Stage, UdpHost, play

RequireHost = Callable[[str], str]


@contextlib.asynccontextmanager
async def running(*command: str, folder: Path | None = None) -> AsyncGenerator[Process]:
    """A program that is gone when the block ends."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=folder)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    if not said:
        assert process.stderr is not None
        pytest.fail((await process.stderr.read()).decode() or "the program ended without a word")
    return said


async def until_it_listens(host: UdpHost, process: Process, port: int) -> None:
    """oscdump says nothing when it is ready, so it is asked until it hears."""
    first = asyncio.create_task(line(process))
    while not first.done():
        host.send("/timbred/ping", "@port", port)
        await asyncio.wait([first], timeout=0.05)
    assert "/timbred/pong" in first.result()


def test_oscsend_asks_and_oscdump_hears(tmp_path: Path, require_host: RequireHost) -> None:
    oscsend, oscdump = require_host("oscsend"), require_host("oscdump")

    async def send(stage: Stage, *arguments: str) -> None:
        async with running(oscsend, "127.0.0.1", str(stage.ports.osc), *arguments) as process:
            assert await process.wait() == 0

    async def scene(stage: Stage) -> None:
        async with stage.udp() as probe:
            port = probe.port
        async with running(oscdump, "-L", str(port)) as dump, stage.udp() as host:
            await until_it_listens(host, dump, port)
            sound = ("/timbred/generate", "issssfsi", "3", "808", "kick", "drum", "@seconds", "2.5", "@port")
            await send(stage, *sound, str(port))
            said = [await heard(dump) for _ in range(4)]
            assert said[0] == "/timbred/queued iif 3 0 0.500000"
            assert said[1] == '/timbred/started is 3 "pocket"'
            assert said[2].startswith('/timbred/take iisfiiifs 3 0 "/takes/0.wav" 1.000000 48000 2 0 0.000000')
            assert said[3] == '/timbred/done iis 3 1 "/takes/0.wav"'
            await send(stage, "/timbred/sing", "si", "@port", str(port))
            assert (await heard(dump)).startswith('/timbred/fail sss "sing" "bad-request"')
            # liblo frames TCP in the older way, with sizes
            tcp = f"osc.tcp://127.0.0.1:{stage.ports.osc}/"
            async with running(oscsend, tcp, "/timbred/dance", "si", "@port", str(port)):
                assert (await heard(dump)).startswith('/timbred/fail sss "dance" "bad-request"')

    async def heard(dump: Process) -> str:
        while "/timbred/pong" in (said := await line(dump)):
            pass
        return said[said.index("/timbred") :].strip()

    play(tmp_path, scene)


NODE = """
const osc = require("osc");
const port = new osc.TCPSocketPort({ address: "127.0.0.1", port: Number(process.argv[2]), useSLIP: true });
const say = (address, ...args) => port.send({ address: "/timbred/" + address, args });
port.on("ready", () => say("hello", { type: "s", value: "node" }));
port.on("message", ({ address, args }) => {
  console.log(JSON.stringify([address.replace("/timbred/", ""), ...args]));
  if (address === "/timbred/welcome")
    say("generate", ...["a", "warm pad", "@loop"].map((value) => ({ type: "s", value })), { type: "f", value: 1 });
  if (address === "/timbred/done") say("sing");
  if (address === "/timbred/fail") port.close();
});
port.open();
"""


@pytest.fixture(scope="session")
def npm_osc(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder in which Node finds npm's osc."""
    folder = tmp_path_factory.mktemp("npm")

    def install(npm: str) -> Path:
        command = [npm, "install", "osc@2.4.5", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            reason = f"npm can't install osc: {done.stderr[-300:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        (folder / "talk.js").write_text(NODE, "utf-8")
        return folder

    return install


def test_npm_osc_talks_over_tcp(tmp_path: Path, require_host: RequireHost, npm_osc: Callable[[str], Path]) -> None:
    node, folder = require_host("node"), npm_osc(require_host("npm"))

    async def scene(stage: Stage) -> None:
        async with running(node, "talk.js", str(stage.ports.osc), folder=folder) as talk:
            said = [json.loads(await line(talk)) for _ in range(6)]
            assert [one[0] for one in said] == ["welcome", "queued", "started", "take", "done", "fail"]
            assert said[1][1:] == ["a", 0, 0.5]
            assert said[5][1:3] == ["sing", "bad-request"]
            assert await talk.wait() == 0

    play(tmp_path, scene)
