"""Without a device, without PortAudio, without a daemon: said plainly, and nothing is left behind."""

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.bare_machine import SITECUSTOMIZE
from tests.host_programs import require_portaudio
from tests.patience import TIMEOUT_S
from tests.player.player_stage import CLIENT, play, player
from timbred import errors
from timbred.ipc import player_messages
from timbred.protocol import messages as m

ROOT = Path(__file__).parents[2]
PLAYER = "\nfrom timbred.player.process.__main__ import main\nmain()"
WITHOUT_PORTAUDIO = (sys.executable, "-c", SITECUSTOMIZE + PLAYER)
WITHOUT_PACKAGE = "import sys; sys.modules['{}'] = None" + PLAYER

CANNOT_START = (sys.executable, "-c", "raise SystemExit(3)")
WITHOUT_NUMPY = (
    sys.executable,
    "-c",
    "import sys; sys.modules['numpy'] = None\nfrom timbred.player.process.__main__ import main\nmain()",
)


async def test_client_unavailable_without_portaudio_says_what_to_install():
    async with player(program=WITHOUT_PORTAUDIO) as (subject, _):
        with pytest.raises(errors.NoAudioDevice, match=r"install PortAudio.*libportaudio2"):
            await subject.opened()
        with pytest.raises(errors.NoAudioDevice, match="install PortAudio"):
            play(subject, np.zeros((10, 2)))


@pytest.mark.parametrize("package", ["rtmixer", "sounddevice"])
async def test_client_unavailable_without_a_python_package_says_what_to_install(package: str):
    if package == "rtmixer":
        require_portaudio()

    async with player(program=(sys.executable, "-c", WITHOUT_PACKAGE.format(package))) as (subject, _):
        with pytest.raises(errors.NoAudioDevice, match="pip install sounddevice rtmixer, then start timbred again"):
            await subject.opened()


async def test_client_unavailable_names_a_missing_device(monkeypatch: pytest.MonkeyPatch):
    require_portaudio()
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "timbred-nowhere")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")

    async with player("player.device=no such card") as (subject, outbox):
        with pytest.raises(errors.NoAudioDevice, match=r"no such card|no sound device"):
            await subject.opened()
        subject.stop_voice(CLIENT, m.Stop(voice="*"))
        assert await outbox.next() == m.Acknowledged(id="stop")


async def test_client_unavailable_gives_the_reason_when_the_player_cannot_start():
    async with player(program=CANNOT_START) as (subject, _):
        with pytest.raises(errors.NoAudioDevice, match="the player can't be started: exit status 3"):
            await subject.opened()
        assert subject.process.state == "failed"
        with pytest.raises(errors.NoAudioDevice, match="the player can't be started"):
            play(subject, np.zeros((10, 2)))


async def test_client_unavailable_without_numpy_says_what_is_missing():
    async with player(program=WITHOUT_NUMPY) as (subject, _):
        with pytest.raises(errors.NoAudioDevice, match=r"can't be started: .*numpy.*reinstall timbred"):
            await subject.opened()


async def test_client_unavailable_refuses_a_waiting_play_when_the_player_cannot_restart():
    async with player(program=CANNOT_START) as (subject, outbox):
        opened = player_messages.DeviceOpened(
            device="card", rate=48_000, channels=2, block=64, latency=0.01, lead=0.01, raised=True
        )
        subject.child_message_received(opened, [])  # as from a player that ends before the sound begins
        play(subject, np.zeros((10, 2)))
        failure = await outbox.next()
        assert (failure.id, failure.code) == ("play", "no-audio-device")
        assert "exit status 3" in failure.message


def test_client_unavailable_ends_the_player_of_a_killed_daemon():
    program = (
        "import anyio, asyncio\n"
        "from tests.player.player_stage import player\n"
        "async def main():\n"
        "    async with player('player.device=no such card') as (subject, _):\n"
        "        await subject._device.known.wait()\n"
        "        print(subject.process.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "anyio.run(main)\n"
    )
    daemon = psutil.Popen([sys.executable, "-c", program], stdout=-1, cwd=ROOT)
    assert daemon.stdout is not None
    process = psutil.Process(int(daemon.stdout.readline()))
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    process.wait(TIMEOUT_S)
