"""Captions of sounds in many wordings, synonyms and orders. Equal random generators give equal captions."""

from collections.abc import Sequence

import numpy as np

from training.pocket.effects import EFFECTS
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, UNPITCHED
from training.pocket.patterns import STYLES
from training.pocket.recordings import RECORDINGS
from training.pocket.sounds import HARD, SOFT, Sound

NOTE_NAMES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
FLATS = {"c#": "db", "d#": "eb", "f#": "gb", "g#": "ab", "a#": "bb"}
SPOKEN = {"c#": "c sharp", "d#": "d sharp", "f#": "f sharp", "g#": "g sharp", "a#": "a sharp"}
SPOKEN_FLATS = {"c#": "d flat", "d#": "e flat", "f#": "g flat", "g#": "a flat", "a#": "b flat"}

CHORD_NAMES: dict[str, tuple[str, ...]] = {
    "major": ("{} major", "{} major", "{} maj", "{}", "{} major triad"),
    "minor": ("{} minor", "{} minor", "{} min", "{}m", "{} minor triad"),
    "major 7": ("{} major 7", "{}maj7", "{} major seventh"),
    "minor 7": ("{} minor 7", "{}m7", "{} minor seventh", "{}min7"),
    "dominant 7": ("{} 7", "{}7", "{} dominant 7", "{} seventh"),
    "diminished": ("{} diminished", "{}dim", "{} dim"),
    "augmented": ("{} augmented", "{}aug", "{} aug"),
    "sus2": ("{} sus2", "{}sus2"),
    "sus4": ("{} sus4", "{}sus4", "{} suspended"),
    "minor 9": ("{} minor 9", "{}m9"),
    "power": ("{} power", "{}5", "{} fifth"),
}
SOFTLY = (("soft", "quiet", "gentle", "pianissimo"), ("played softly", "played gently", "soft", "with a soft touch"))
LOUDLY = (("hard", "loud", "strong", "fortissimo"), ("played hard", "played loud", "hard", "with a hard attack"))
SHORT = (("short", "staccato", "brief", "clipped"), ("staccato", "played short", "cut short", "short"))
HELD = (("held", "sustained", "long"), ("held", "sustained"))
LOW = (("low", "deep", "low-pitched"), ("low in pitch", "in a low register", "low"))
HIGH = (("high", "high-pitched"), ("high in pitch", "in a high register", "high"))

SYNTHESISED: dict[str, tuple[str, ...]] = {
    "kick": ("synth kick", "electronic kick", "analog kick", "909 kick", "synthesised kick"),
    "snare": ("synth snare", "electronic snare", "909 snare", "synthesised snare"),
    "clap": ("synth clap", "electronic clap", "808 clap", "synthesised clap"),
    "closed hi-hat": ("synth closed hat", "electronic closed hi-hat", "synthesised hat", "noise hat"),
    "open hi-hat": ("synth open hat", "electronic open hi-hat", "synthesised open hat"),
    "cymbal": ("synth cymbal", "electronic crash", "synthesised cymbal"),
    "tom": ("synth tom", "electronic tom", "synthesised tom"),
    "rim": ("synth rim", "electronic rimshot", "synthesised rim click"),
    "shaker": ("synth shaker", "electronic shaker", "noise shaker"),
    "cowbell": ("synth cowbell", "808 cowbell", "electronic cowbell"),
    "impact": ("impact", "boom", "cinematic hit", "explosion", "sub drop", "big boom"),
    "bass": ("sub bass", "synth bass", "reese", "electronic bass", "bass", "analog sub"),
    "pluck": ("synth pluck", "pluck", "plucky synth", "plucked string synth", "plucked string"),
    "pad": ("synth pad", "ambient pad", "pad", "lush pad", "evolving pad"),
    "lead": ("synth lead", "lead", "synth", "lead synth", "solo synth"),
    "bell": ("synth bell", "fm bell", "digital bell", "bell"),
    "organ": ("synth organ", "electronic organ", "additive organ"),
    "brass": ("brass stab", "synth brass stab", "analog brass stab"),
    "drone": ("drone", "hum", "droning tone", "dark drone", "drone synth"),
    "siren": ("siren", "alarm", "police siren", "warning siren"),
    "riser": ("riser", "uplifter", "noise sweep", "build up", "whoosh", "sweep"),
    "rain": ("rain", "rainfall", "raindrops", "downpour", "drizzle"),
    "wind": ("wind", "breeze", "howling wind", "storm wind"),
    "zap": ("zap", "laser", "laser gun", "pew", "blaster"),
    "bubble": ("bubble", "water drop", "bubbles", "drip", "droplet"),
    "crackle": ("crackle", "vinyl crackle", "fire crackle", "crackling fire"),
    "noise": ("noise", "white noise", "static", "noise burst", "tape hiss"),
}
DOWNLIFTERS = ("downlifter", "downsweep", "falling sweep")
WAYS: dict[str, dict[int, tuple[Sequence[str], Sequence[str]]]] = {
    "length": {-1: SHORT, 1: (("long", "sustained", "extended"), ("with a long tail", "long", "that lasts"))},
    "pitch": {-1: LOW, 1: HIGH},
    "brightness": {
        -1: (("dark", "dull", "muffled"), ("with little treble", "dark", "without highs")),
        1: (("bright", "brilliant", "crisp"), ("with lots of treble", "bright")),
    },
    "space": {
        -1: (("dry", "close"), ("without reverb", "dry")),
        1: (("reverberant", "spacious"), ("with reverb", "in a big hall", "with lots of reverb")),
    },
    "motion": {
        -1: (("falling", "descending"), ("falling in pitch", "going down", "sliding down")),
        1: (("rising", "ascending"), ("rising in pitch", "going up", "sliding up")),
    },
    "edge": {
        -1: (("punchy", "hard"), ("with a hard attack", "with a fast attack")),
        1: (("soft", "gentle"), ("with a soft attack", "with a slow attack")),
    },
}
FLAGS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "distorted": (("distorted", "crunchy", "dirty"), ("with distortion", "with overdrive")),
    "metallic": (("metallic", "tinny"), ("with a metallic ring", "made of metal")),
    "noisy": (("noisy", "hissy"), ("with noise", "with hiss")),
    "warm": (("warm", "analog", "round"), ("with warmth", "with a warm tone")),
    "airy": (("airy", "light"), ("with air", "with an airy top")),
    "detuned": (("detuned", "wobbly"), ("with detuned oscillators", "with chorus")),
}

LOOPS = ("drum loop", "drums", "beat", "drum beat", "groove", "drum pattern", "loop", "rhythm")
BEFORE = (
    *("",) * 9,
    *("a ",) * 6,
    "the ",
    "one ",
    "sound of a ",
    "recording of a ",
    "sample of a ",
    "a single ",
    "play a ",
    "make a ",
    "i need a ",
    "my ",
    "give me a ",
)
AFTER = (*("",) * 12, " sound", " sample", ".", " please", " for my track", " in a song", "!", " one shot")
HELD_OUT_TEMPLATES = (
    "could you give me {}",
    "imagine {} right now",
    "{} from a museum of machines",
    "what {} might be like",
    "somebody records {}",
    "we want {} over here",
)
"""Wordings that are used for the evaluation only, not for training."""
_FILLERS = """
nice great cool good studio vintage modern pop cinematic retro classic quality raw simple pure beautiful strange huge
fat music layer night blue old very really just kind of like and from the to it is that on by at so you would can may
want need get take hear try please now here there when this these some any all more most only your its not or if as
while about between into before after above up down out off over under again people man woman city river room table
story film stage band player concert machine black red golden winter morning evening day time thing idea feeling dream
mood scene dance drop intro producer synthesizer keyboard computer version first last new big
"""
FILLERS = tuple(_FILLERS.split())


def note_name(note: int, random: np.random.Generator | None = None) -> str:
    """Return the name of a MIDI note, 60 = c4; with a random generator some have flats or spelt accidentals."""
    name, octave = NOTE_NAMES[note % 12], note // 12 - 1
    return f"{_class_name(name, random)}{octave}" if random is None else _join(_class_name(name, random), octave)


def _join(name: str, octave: int) -> str:
    return f"{name} {octave}" if " " in name else f"{name}{octave}"


def _class_name(name: str, random: np.random.Generator | None) -> str:
    if random is None or name not in FLATS:
        return name
    choice = random.uniform()
    if choice < 0.6:
        return name
    if choice < 0.85:
        return FLATS[name]
    return SPOKEN[name] if choice < 0.93 else SPOKEN_FLATS[name]


def _pick(random: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(random.integers(len(options)))]


_INSTRUMENT_NAMES = {(row.bank, row.program): row.names for row in INSTRUMENTS}


def nouns(sound: Sound) -> Sequence[str]:
    """Return the names of the sound's kind, the most usual one first."""
    if sound.recipe is not None:
        falling = sound.recipe["kind"] == "riser" and sound.recipe["motion"] < 0
        return DOWNLIFTERS if falling else SYNTHESISED[sound.recipe["kind"]]
    if sound.recording is not None:
        return RECORDINGS[sound.recording].names
    if sound.form == "hit":
        return DRUMS[sound.events[0][2]]
    if sound.form == "loop":
        return LOOPS
    address = sound.bank, sound.program
    return UNPITCHED[address] if sound.form == "texture" else _INSTRUMENT_NAMES[address]


def _qualities(sound: Sound) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Return adjectives and phrases for every attribute that isn't neutral."""
    qualities: list[tuple[Sequence[str], Sequence[str]]] = []
    if sound.velocity is not None and sound.velocity <= SOFT:
        qualities.append(SOFTLY)
    if sound.velocity is not None and sound.velocity >= HARD:
        qualities.append(LOUDLY)
    if sound.short:
        qualities.append(SHORT)
    if sound.register:
        qualities.append(HIGH if sound.register > 0 else LOW)
    if sound.recipe is not None:
        qualities += [WAYS[name][sound.recipe[name]] for name in WAYS if sound.recipe[name]]
        qualities += [FLAGS[flag] for flag in sound.recipe["flags"]]
    return qualities


def _kit_words(sound: Sound, random: np.random.Generator) -> str:
    """Return a word for the drum kit, at random; empty for percussion that is equal in all kits."""
    known = sound.program in KITS and (sound.form == "loop" or sound.style is not None)
    if not known or random.uniform() < 0.45:
        return ""
    word = _pick(random, KITS[sound.program])
    return word if not word.startswith("with") else word.split()[-1]


def caption(sound: Sound, random: np.random.Generator, rough: bool = True, note_chance: float = 0.75) -> str:
    """Describe a sound in a random wording. Attributes may be omitted; a caption contains no wrong ones.

    `rough` adds words without meaning and changes letter case. `note_chance` is the probability that a note or chord is
    named.
    """
    noun = _pick(random, nouns(sound)) if random.uniform() < 0.6 else nouns(sound)[0]
    before: list[str] = []
    after: list[str] = []
    # effects are named more often than other qualities, because they are clearly audible
    qualities = [quality for quality in _qualities(sound) if random.uniform() < 0.8]
    qualities += [(EFFECTS[name].before, EFFECTS[name].after) for name in sound.effects if random.uniform() < 0.92]
    for index in random.permutation(len(qualities)):
        adjectives, clauses = qualities[int(index)]
        if random.uniform() < 0.5:
            before.append(_pick(random, adjectives))
        else:
            after.append(_pick(random, clauses))
    if sound.source in ("font", "other font") and sound.drums and (kit := _kit_words(sound, random)):
        before.append(kit)
    noun, pitch = _musical(sound, noun, random, note_chance)
    if pitch:
        (before if random.uniform() < 0.15 else after).insert(0, pitch)
    if random.uniform() < 0.2:
        words = [noun, *before, *after]
        order = random.permutation(len(words))
        text = (", " if random.uniform() < 0.4 else " ").join(words[int(index)] for index in order)
    else:
        head = " ".join([*before, noun])
        tail = _pick(random, (" ", " ", ", ")).join(after)
        text = f"{_pick(random, BEFORE)}{head} {tail}".rstrip() + _pick(random, AFTER)
    return _roughen(text, random) if rough else text


def _musical(sound: Sound, noun: str, random: np.random.Generator, note_chance: float) -> tuple[str, str]:
    """Return the noun with its form ("harp arpeggio"), and the words for note, chord, tempo."""
    named = random.uniform() < note_chance
    if sound.form == "loop" and sound.style is not None:
        style = _pick(random, STYLES[sound.style].names) if random.uniform() < 0.85 else ""
        noun = f"{style} {noun}".strip()
        tempo = _tempo(sound, random) if named else ""
        return noun, tempo
    if sound.note is None:
        return noun, ""
    root = note_name(sound.note, random)
    if sound.chord is not None:
        bare = _class_name(NOTE_NAMES[sound.note % 12], random)
        chord_root = bare if random.uniform() < 0.7 else root
        chord = _pick(random, CHORD_NAMES[sound.chord]).format(chord_root) if named else ""
        if sound.form == "chord":
            noun, chord = (f"{noun} chord", chord) if not chord or random.uniform() < 0.5 else (noun, f"{chord} chord")
        else:
            noun = f"{noun} {_pick(random, ('arpeggio', 'arp', 'arpeggios', 'broken chord'))}"
        return noun, _run_words(sound, chord, random)
    if sound.scale is not None:
        bare = _class_name(NOTE_NAMES[sound.note % 12], random)
        scale = f"{bare} {sound.scale} scale" if named else f"{sound.scale} scale"
        return noun, _run_words(sound, scale, random)
    if not named:
        return noun, ""
    return noun, _pick(random, ("{}", "{}", "{}", "on {}", "at {}", "note {}", "playing {}")).format(root)


def _tempo(sound: Sound, random: np.random.Generator) -> str:
    number = f"{sound.bpm:g}"
    return _pick(random, ("{} bpm", "{} bpm", "{}bpm", "at {} bpm", "at {} beats per minute", "tempo {}")).format(
        number
    )


def _run_words(sound: Sound, pitch: str, random: np.random.Generator) -> str:
    """Return the words for a sequence's chord or scale, at random with direction and tempo."""
    words = [pitch]
    if sound.direction and random.uniform() < 0.5:
        words.append(_pick(random, ("going up", "up", "rising") if sound.direction > 0 else ("going down", "down")))
    if sound.bpm is not None and random.uniform() < 0.6:
        words.append(_tempo(sound, random))
    return " ".join(word for word in words if word)


def _roughen(text: str, random: np.random.Generator) -> str:
    """Add filler words before and after the caption, and change letter case."""
    words = text.split()
    if random.uniform() < 0.3:
        words = [_pick(random, FILLERS) for _ in range(int(random.integers(4)))] + words
        words += [_pick(random, FILLERS) for _ in range(int(random.integers(4)))]
    text = " ".join(words)
    case = random.uniform()
    if case < 0.12:
        return text.capitalize()
    return text.upper() if case < 0.14 else text
