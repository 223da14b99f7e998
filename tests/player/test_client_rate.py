"""A device with another rate than usual: a server of its own, so in a file of its own (see `free_name`)."""

import asyncio
from pathlib import Path

import pytest
import soundfile

from tests.player.player_stage import Require, jack_server
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.protocol import messages as m

__all__ = ["audioldm", "importable"]


@pytest.mark.parametrize(("said", "rate"), [((), 44_100), (("audio.rate=32000",), 32_000)])
async def test_client_rate_of_the_session_follows_the_device_until_it_is_set(
    require_host: Require, tmp_path: Path, audioldm: Path, said: tuple[str, ...], rate: int
):
    async def conversation() -> None:
        async with running(tmp_path, audioldm, "player.lead=100", *said) as daemon:
            client = daemon.transports.client()
            await daemon.player.opened()
            [now] = await asyncio.wait_for(client.request(type="settings/audio.rate"), TIMEOUT_S)
            assert now == m.SettingNow(name="audio.rate", value=rate)
            [status] = await asyncio.wait_for(client.request(type="status"), TIMEOUT_S)
            assert isinstance(status, m.StatusReply)
            assert status.sample_rate == 44_100, "the device's"
            *_, take, _ = await asyncio.wait_for(
                client.request(type="generate", id="a", prompt="a tone", seconds=0.2, steps=2), TIMEOUT_S
            )
            assert isinstance(take, m.Take)
            assert (take.rate, soundfile.info(take.path).samplerate) == (rate, rate)

    with jack_server(require_host, rate=44_100):
        await conversation()
