"""Sounds that are heard while they are still made: from the engine's pieces to a voice that grows."""

from collections.abc import Callable
from dataclasses import dataclass

from timbred import errors
from timbred.clip import Clip, Samples
from timbred.delivery.player.listeners import Asker
from timbred.delivery.player.player import Player
from timbred.jobs.job import Job
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId, Outbox
from timbred.render.early import EarlySound, Piece
from timbred.units import SampleRate


@dataclass(eq=False)
class Growing:
    """One sound on its way, at the device's `rate`. `play` is the player's number for it, None until its first samples;
    one that is `refused` never sounds."""

    sound: EarlySound
    rate: int
    play: int | None = None
    refused: bool = False


class Early:
    """Hears of sounds that are heard early what `dispatch.pieces.Pieces` says. Runs on the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        player: Player,
        voice_for: Callable[[m.Generate], int],
        keys_for: Callable[[m.Generate], m.PlayKeys],
        fail: Callable[[ClientId, Exception], None],
    ) -> None:
        """`voice_for` finds the voice that a request is to sound on, `keys_for` how; `fail` tells a client of an error
        on the way."""
        self.outbox = outbox
        self.player = player
        self._voice_for = voice_for
        self._keys_for = keys_for
        self._fail = fail
        self._growing: dict[int, Growing | None] = {}

    def piece(self, job: Job, piece: Piece) -> None:
        """The next piece of a job's sound is there."""
        asked = job.parameters.playing
        if asked is None:
            return
        if piece.first == 0:
            self._growing[job.number] = self._begun(job, piece)
        growing = self._growing.get(job.number)
        if growing is None or growing.refused:
            return
        samples = growing.sound.take(piece)
        if growing.play is not None:
            self.player.add(growing.play, samples)
        elif len(samples):
            self._sound(job, asked, growing, samples)

    def broken(self, job: Job) -> None:
        """No more comes of it: what is heard of it ends."""
        growing = self._growing.pop(job.number, None)
        if growing is not None and growing.play is not None:
            self.player.break_off(growing.play)

    def heard(self, job: Job) -> Growing | None:
        """How a job whose take is there now was heard by its pieces already, if it was; asked once."""
        return self._growing.pop(job.number, None)

    def _begun(self, job: Job, piece: Piece) -> Growing | None:
        """None without a device: then the take is played when it is there, if there is one by then."""
        rate = self.player.rate
        return None if rate is None else Growing(EarlySound(job.parameters.render_settings(), piece, rate), rate)

    def _sound(self, job: Job, asked: m.Generate, growing: Growing, samples: Samples) -> None:
        clip = Clip(samples, SampleRate(growing.rate))
        listener = Asker(self.outbox, job.client, job.heard_as)
        try:
            growing.play = self.player.sound(
                listener, self._voice_for(asked), clip, False, self._keys_for(asked), whole=growing.sound.frames
            )
        except errors.TimbredError as error:
            growing.refused = True
            self._fail(job.client, error)
