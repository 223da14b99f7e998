"""What holds for all that plays: tempo, meter, level."""

import msgspec

from timbred import errors
from timbred.config import Config
from timbred.delivery import wire


class Desk:
    """Tempo, meter and level as set. Says what the player is to be told; a new process is told all of it."""

    def __init__(self, config: Config) -> None:
        self.link = bool(config["link"])
        self._tempo = wire.Tempo(bpm=config["tempo"], beats_per_bar=config["beats_per_bar"])
        self._level = wire.Level(gain=config["player.gain"])

    def set_tempo(self, bpm: float | None, beats_per_bar: float | None) -> wire.Tempo:
        """Another tempo or meter.

        Raises:
            BadRequest: Link is on, and its session has the tempo.
        """
        if bpm is not None and self.link:
            raise errors.BadRequest(
                "tempo: Link is on, so its session has the tempo; set it there, or start without link"
            )
        self._tempo = wire.Tempo(
            bpm=self._tempo.bpm if bpm is None else bpm,
            beats_per_bar=self._tempo.beats_per_bar if beats_per_bar is None else beats_per_bar,
        )
        return self._tempo

    def set_level(self, gain: float) -> wire.Level:
        """Another gain of everything, in dB."""
        self._level = wire.Level(gain=gain)
        return self._level

    def for_new_process(self, beat: float) -> tuple[wire.Tempo, wire.Level]:
        """What a process that begins on this beat is told first."""
        return msgspec.structs.replace(self._tempo, beat=beat), self._level
