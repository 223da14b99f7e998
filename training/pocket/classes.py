"""Classes of the evaluation's classifier: the sounds of a soundfont in each class, and prompts for them."""

from dataclasses import dataclass

from training.pocket.instruments import INSTRUMENTS, UNPITCHED


@dataclass(frozen=True)
class SoundClass:
    """One class.

    Attributes:
        name: its name.
        kinds: its kinds of instruments or unpitched sounds.
        keys: its percussion keys.
        prompts: words of prompts for it.
    """

    name: str
    kinds: tuple[str, ...] = ()
    keys: tuple[int, ...] = ()
    prompts: tuple[str, ...] = ()


_PITCHED = """
piano: grand piano, bright piano, mellow piano
electric piano: electric piano, fm electric piano
harpsichord: harpsichord
clavinet: clavinet
celesta: celesta
glockenspiel: glockenspiel
music box: music box
vibraphone: vibraphone
marimba: marimba
xylophone: xylophone
tubular bells: tubular bells, church bell
dulcimer: dulcimer
drawbar organ: drawbar organ, percussive organ, rock organ
church organ: church organ, reed organ
accordion: accordion, bandoneon
harmonica: harmonica
acoustic guitar: nylon guitar, steel guitar
electric guitar: clean guitar, jazz guitar
muted guitar: muted guitar
distortion guitar: distortion guitar, overdriven guitar
acoustic bass: acoustic bass
electric bass: finger bass, picked bass, fretless bass
slap bass: slap bass, popped bass
synth bass: synth bass, rubber bass
violin: violin
cello: cello
contrabass: contrabass
tremolo strings: tremolo strings
pizzicato strings: pizzicato strings
harp: harp
timpani: timpani
string ensemble: string ensemble, slow strings
choir aah: choir aah
voice ooh: voice ooh
trumpet: trumpet
trombone: trombone
tuba: tuba
muted trumpet: muted trumpet
french horn: french horn
brass section: brass section
orchestra hit: orchestra hit
saxophone: alto sax, tenor sax, soprano sax, baritone sax
oboe: oboe, english horn
bassoon: bassoon
clarinet: clarinet
flute: flute, piccolo
recorder: recorder
pan flute: pan flute
ocarina: ocarina, whistle
square lead: square lead
saw lead: saw lead
sine wave: sine wave
warm pad: warm pad
metal pad: metal pad
sitar: sitar
banjo: banjo
koto: koto
kalimba: kalimba
bagpipe: bagpipe
steel drum: steel drum
"""
_DRUMS = (
    SoundClass("kick", keys=(35, 36), prompts=("kick drum",)),
    SoundClass("snare", keys=(38, 40), prompts=("snare drum",)),
    SoundClass("rimshot", keys=(37,), prompts=("rimshot",)),
    SoundClass("clap", keys=(39,), prompts=("hand clap",)),
    SoundClass("closed hi-hat", keys=(42, 44), prompts=("closed hi-hat",)),
    SoundClass("open hi-hat", keys=(46,), prompts=("open hi-hat",)),
    SoundClass("crash cymbal", keys=(49, 57, 55, 52), prompts=("crash cymbal",)),
    SoundClass("ride cymbal", keys=(51, 59, 53), prompts=("ride cymbal",)),
    SoundClass("tom", keys=(41, 43, 45, 47, 48, 50), prompts=("tom drum",)),
    SoundClass("tambourine", keys=(54,), prompts=("tambourine",)),
    SoundClass("cowbell", keys=(56,), prompts=("cowbell",)),
    SoundClass("bongo or conga", keys=(60, 61, 62, 63, 64), prompts=("conga", "bongo")),
    SoundClass("shaker", keys=(69, 70), prompts=("maracas", "cabasa")),
    SoundClass("claves", keys=(75, 76, 77), prompts=("claves", "woodblock")),
    SoundClass("triangle", keys=(81, 80), prompts=("triangle",)),
    SoundClass("whistle", keys=(71, 72), prompts=("referee whistle",)),
)
_OTHERS = (
    SoundClass("sea", ("seashore",), prompts=("ocean waves",)),
    SoundClass("birds", ("bird tweet",), prompts=("birds",)),
    SoundClass("telephone", ("telephone ring",), prompts=("telephone ring",)),
    SoundClass("helicopter", ("helicopter",), prompts=("helicopter",)),
    SoundClass("applause", ("applause",), prompts=("applause",)),
    SoundClass("gunshot", ("gunshot",), prompts=("gunshot",)),
    SoundClass("reverse cymbal", ("reverse cymbal",), prompts=("reverse cymbal",)),
)


def _pitched() -> tuple[SoundClass, ...]:
    classes: list[SoundClass] = []
    for line in _PITCHED.strip().splitlines():
        name, kinds = line.split(": ")
        listed = tuple(kinds.split(", "))
        classes.append(SoundClass(name, listed, prompts=listed[:2]))
    return tuple(classes)


CLASSES = _pitched() + _DRUMS + _OTHERS
PROGRAMS = {row.kind: (row.bank, row.program) for row in INSTRUMENTS} | {
    names[0]: program for program, names in UNPITCHED.items()
}
"""Kind to bank and program."""
