"""All generated patches by file name."""

from bridges.puredata.source.drum_machine import drum_machine, row
from bridges.puredata.source.help import sampler_help, timbred_help
from bridges.puredata.source.patch import Patch
from bridges.puredata.source.sampler import sampler, voice
from bridges.puredata.source.timbred import timbred


def patches() -> dict[str, Patch]:
    """Build all patches; return them by file name."""
    return {
        "timbred.pd": timbred(),
        "timbred-help.pd": timbred_help(),
        "timbred-sampler.pd": sampler(),
        "timbred-sampler-help.pd": sampler_help(),
        "timbred-sampler-voice.pd": voice(),
        "timbred-drum-row.pd": row(),
        "drum-machine.pd": drum_machine(),
    }
