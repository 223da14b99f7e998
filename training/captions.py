"""Captions of recipes, in many wordings, synonyms and orders, from a random generator. Equal seeds give equal captions.

`HELD_OUT_TEMPLATES` are never used for training; all prompts of the evaluation use them.
"""

import numpy as np

from training.synthesis.kinds import KINDS
from training.synthesis.recipe import Recipe

NOTE_NAMES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
FLAT_NAMES = {"c#": "db", "d#": "eb", "f#": "gb", "g#": "ab", "a#": "bb"}

NOUNS: dict[str, tuple[str, ...]] = {
    "kick": ("kick", "kick", "kick drum", "bass drum", "bd", "kickdrum", "808 kick", "909 kick", "thump"),
    "snare": ("snare", "snare", "snare drum", "sd", "snare hit", "drum snare", "rimless snare"),
    "clap": ("clap", "clap", "hand clap", "handclap", "claps", "clapping hands"),
    "closed hi-hat": (
        "closed hi-hat",
        "closed hat",
        "hi-hat",
        "hihat",
        "hat",
        "hi hat",
        "closed hihat",
        "hh",
        "ch",
        "tick hat",
    ),
    "open hi-hat": ("open hi-hat", "open hat", "open hihat", "oh", "open hi hat", "opened hi-hat"),
    "cymbal": ("cymbal", "crash", "crash cymbal", "ride", "ride cymbal", "splash", "splash cymbal", "china"),
    "tom": ("tom", "tom tom", "floor tom", "tom drum", "conga", "tom-tom"),
    "rim": ("rim", "rimshot", "rim shot", "clave", "claves", "woodblock", "wood block", "side stick", "stick click"),
    "shaker": ("shaker", "maraca", "maracas", "cabasa", "shake"),
    "cowbell": ("cowbell", "cow bell", "agogo", "808 cowbell"),
    "impact": ("impact", "boom", "sub drop", "cinematic hit", "explosion", "big boom", "braam", "thunder"),
    "bass": ("bass", "bass", "bassline", "bass note", "synth bass", "bass synth", "sub bass", "reese", "bass guitar"),
    "pluck": ("pluck", "pluck", "plucked string", "guitar", "harp", "string pluck", "koto", "guitar string", "lute"),
    "pad": ("pad", "pad", "synth pad", "string pad", "strings", "ambient pad", "chord", "synth strings", "chords"),
    "lead": ("lead", "lead", "synth lead", "lead synth", "solo synth", "saw lead", "lead line"),
    "bell": ("bell", "bell", "chime", "bells", "tubular bell", "church bell", "glockenspiel", "chimes", "gong"),
    "organ": ("organ", "organ", "hammond", "church organ", "pipe organ", "drawbar organ"),
    "brass": ("brass", "brass stab", "horn", "horns", "trumpet", "stab", "brass section", "trombone"),
    "drone": ("drone", "drone", "hum", "humming", "ambient drone", "droning tone"),
    "siren": ("siren", "alarm", "police siren", "air raid siren", "warning siren"),
    "riser": (
        "riser",
        "riser",
        "uplifter",
        "noise sweep",
        "build up",
        "buildup",
        "whoosh",
        "sweep",
        "upsweep",
        "swoosh",
    ),
    "rain": ("rain", "rain", "rainfall", "raindrops", "rain storm", "downpour", "drizzle"),
    "wind": ("wind", "wind", "breeze", "howling wind", "gust", "gusts of wind", "storm wind"),
    "zap": ("zap", "laser", "laser gun", "laser zap", "pew", "blaster", "ray gun", "laser shot"),
    "bubble": ("bubble", "water drop", "bubbles", "drip", "droplet", "water drip", "blip of water"),
    "crackle": ("crackle", "vinyl crackle", "vinyl noise", "record crackle", "fire crackle", "crackling fire"),
    "noise": ("noise", "white noise", "static", "hiss", "noise burst", "tape hiss", "tv static"),
}
DOWNLIFTERS = ("downlifter", "downsweep", "down sweep", "falling sweep", "falling noise sweep")

Phrases = tuple[tuple[str, ...], tuple[str, ...]]
"""Adjectives for the position before the noun, and phrases for the position after it."""

WAYS: dict[str, dict[int, Phrases]] = {
    "length": {
        -1: (
            ("short", "short", "brief", "quick", "staccato", "clipped", "very short", "tiny"),
            ("with a short decay", "with a short tail", "that stops quickly", "short"),
        ),
        1: (
            ("long", "long", "lengthy", "sustained", "extended", "very long", "long lasting"),
            ("with a long decay", "with a long tail", "that rings for a long time", "long", "that lasts"),
        ),
    },
    "pitch": {
        -1: (
            ("low", "low", "deep", "low-pitched", "low pitched", "lower"),
            ("low in pitch", "in a low register", "with a low pitch", "low"),
        ),
        1: (
            ("high", "high", "high-pitched", "high pitched", "higher"),
            ("high in pitch", "in a high register", "with a high pitch", "high", "high up"),
        ),
    },
    "brightness": {
        -1: (
            ("dark", "dark", "dull", "muffled", "muted", "very dark"),
            ("with little treble", "dark", "without highs", "low passed", "behind a wall"),
        ),
        1: (
            ("bright", "bright", "brilliant", "crisp", "sharp sounding", "very bright", "sizzling", "shiny"),
            ("with lots of treble", "bright", "full of highs", "with a lot of top end"),
        ),
    },
    "space": {
        -1: (("dry", "close", "close miked"), ("without reverb", "dry", "no reverb", "with no room")),
        1: (
            ("reverberant", "echoing", "spacious", "roomy", "wet"),
            ("with reverb", "in a big hall", "in a large room", "with lots of reverb", "in a cathedral", "in a cave"),
        ),
    },
    "motion": {
        -1: (
            ("falling", "descending", "dropping", "downward"),
            ("falling in pitch", "going down", "that falls", "sliding down"),
        ),
        1: (
            ("rising", "ascending", "climbing", "upward"),
            ("rising in pitch", "going up", "that rises", "sliding up"),
        ),
    },
}
STRUCK_EDGE: dict[int, Phrases] = {
    -1: (("punchy", "hard", "snappy", "hard hitting", "clicky"), ("with a hard attack", "with punch", "punchy")),
    1: (("soft", "soft", "gentle", "mellow", "smooth"), ("with a soft attack", "played softly", "soft")),
}
HELD_EDGE: dict[int, Phrases] = {
    -1: (
        ("fast attack", "punchy", "sudden", "immediate"),
        ("with a fast attack", "fast attack", "that starts at once", "with a quick attack"),
    ),
    1: (
        ("slow", "soft", "swelling", "gentle", "slow attack"),
        ("with a slow attack", "that fades in", "slow attack", "that swells", "fading in slowly"),
    ),
}
FLAGS: dict[str, Phrases] = {
    "distorted": (
        ("distorted", "distorted", "overdriven", "crunchy", "dirty", "gritty", "saturated"),
        ("with distortion", "through a fuzz pedal", "heavily distorted", "with overdrive"),
    ),
    "metallic": (
        ("metallic", "metallic", "metal", "tinny", "clangy"),
        ("made of metal", "with a metallic ring", "ringing like metal", "metallic"),
    ),
    "noisy": (
        ("noisy", "noisy", "hissy", "grainy", "breathy"),
        ("with noise", "with hiss", "covered in noise", "with added noise"),
    ),
    "warm": (("warm", "warm", "analog", "cosy", "round"), ("with warmth", "warm", "with a warm tone")),
    "airy": (("airy", "airy", "breezy", "light"), ("with air", "airy", "with an airy top")),
    "detuned": (
        ("detuned", "detuned", "out of tune", "wobbly", "chorused"),
        ("with detuned oscillators", "slightly out of tune", "with chorus", "detuned"),
    ),
}

BEFORE = (
    "",
    "",
    "",
    "",
    "",
    "a ",
    "a ",
    "a ",
    "the ",
    "one ",
    "sound of a ",
    "the sound of a ",
    "sound of ",
    "some ",
    "recording of a ",
    "a recording of a ",
    "this is a ",
    "sample of a ",
    "a single ",
    "play a ",
    "make a ",
    "generate a ",
    "synthesize a ",
    "i need a ",
    "an electronic ",
    "synth ",
    "my ",
    "new ",
    "sfx: ",
)
AFTER = (
    "",
    "",
    "",
    "",
    "",
    "",
    " sound",
    " sound",
    " sample",
    " one shot",
    " one-shot",
    " hit",
    " sfx",
    " effect",
    " sound effect",
    " tone",
    " please",
    " for a techno track",
    " for a game",
    ".",
    ".",
    "!",
    " in a song",
    " for my beat",
    " loop",
    " patch",
    " preset",
)
HELD_OUT_TEMPLATES = (
    "could you give me {}",
    "imagine {} right now",
    "{} from a museum of machines",
    "what {} might be like",
    "somebody records {}",
    "we want {} over here",
)
FILLERS = [
    "nice",
    "great",
    "cool",
    "good",
    "studio",
    "vintage",
    "modern",
    "electronic",
    "techno",
    "house",
    "ambient",
    "trap",
    "dubstep",
    "pop",
    "jazz",
    "cinematic",
    "retro",
    "classic",
    "digital",
    "lo-fi",
    "hi-fi",
    "quality",
    "professional",
    "raw",
    "simple",
    "pure",
    "beautiful",
    "strange",
    "weird",
    "huge",
    "small",
    "fat",
    "mono",
    "solo",
    "track",
    "music",
    "layer",
    "texture",
    "night",
    "blue",
    "old",
    "very",
    "really",
    "quite",
    "just",
    "kind",
    "of",
    "like",
    "and",
    "from",
    "of",
    "the",
    "to",
    "it",
    "is",
    "that",
    "on",
    "by",
    "at",
    "so",
    "i",
    "you",
    "he",
    "she",
    "they",
    "it's",
    "would",
    "will",
    "can",
    "may",
    "must",
    "should",
    "want",
    "wants",
    "need",
    "needs",
    "give",
    "gives",
    "gave",
    "me",
    "us",
    "him",
    "take",
    "takes",
    "took",
    "get",
    "gets",
    "make",
    "makes",
    "made",
    "play",
    "plays",
    "hear",
    "hears",
    "heard",
    "listen",
    "think",
    "thinks",
    "let",
    "lets",
    "try",
    "please",
    "thanks",
    "hello",
    "maybe",
    "perhaps",
    "always",
    "never",
    "now",
    "then",
    "today",
    "here",
    "there",
    "where",
    "when",
    "why",
    "how",
    "who",
    "this",
    "these",
    "those",
    "which",
    "some",
    "any",
    "every",
    "each",
    "all",
    "both",
    "few",
    "many",
    "much",
    "more",
    "most",
    "other",
    "such",
    "only",
    "own",
    "same",
    "than",
    "too",
    "not",
    "but",
    "or",
    "if",
    "because",
    "as",
    "until",
    "while",
    "about",
    "between",
    "into",
    "through",
    "during",
    "before",
    "after",
    "above",
    "below",
    "up",
    "down",
    "out",
    "off",
    "over",
    "under",
    "again",
    "once",
    "world",
    "people",
    "man",
    "woman",
    "child",
    "house",
    "city",
    "street",
    "river",
    "mountain",
    "car",
    "train",
    "ship",
    "room",
    "window",
    "table",
    "book",
    "story",
    "film",
    "stage",
    "show",
    "band",
    "player",
    "concert",
    "machine",
    "box",
    "black",
    "white",
    "red",
    "green",
    "golden",
    "silver",
    "winter",
    "summer",
    "morning",
    "evening",
    "day",
    "year",
    "time",
    "place",
    "thing",
    "idea",
    "feeling",
    "dream",
    "style",
    "mood",
    "vibe",
    "scene",
    "dance",
    "floor",
    "beat",
    "groove",
    "rhythm",
    "drop",
    "intro",
    "outro",
    "verse",
    "producer",
    "engineer",
    "synthesizer",
    "sampler",
    "keyboard",
    "computer",
    "software",
    "version",
    "number",
    "one",
    "two",
    "three",
    "four",
    "first",
    "second",
    "last",
    "next",
    "new",
    "great",
    "big",
    "little",
    "best",
    "free",
    "real",
    "original",
    "favourite",
    "famous",
    "typical",
    "perfect",
    "proper",
    "instrument",
    "acoustic",
]
CONSONANTS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "gr", "ch", "th", "ng")
VOWELS = ("a", "e", "i", "o", "u", "ea", "ou", "ie")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def note_name(note: int, flats: bool = False) -> str:
    """Return the name of a MIDI note, 60 = c4."""
    name = NOTE_NAMES[note % 12]
    if flats:
        name = FLAT_NAMES.get(name, name)
    return f"{name}{note // 12 - 1}"


def _pick(random: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(random.integers(len(options)))]


def _phrases(recipe: Recipe) -> list[Phrases]:
    """Return the phrases for every attribute of the recipe that isn't neutral."""
    phrases = [
        WAYS[name][getattr(recipe, name)]
        for name in ("length", "pitch", "brightness", "space", "motion")
        if getattr(recipe, name) != 0
    ]
    if recipe.edge != 0:
        struck = KINDS[recipe.kind].slow_attack[1] < 0.1
        phrases.append((STRUCK_EDGE if struck else HELD_EDGE)[recipe.edge])
    phrases += [FLAGS[flag] for flag in recipe.flags]
    return phrases


def _filler(random: np.random.Generator) -> str:
    """Return a word without meaning for the sound: a common word, or random letters."""
    choice = random.uniform()
    if choice < 0.7:
        return FILLERS[int(random.integers(len(FILLERS)))]
    if choice < 0.9:
        syllables = int(random.integers(1, 4))
        pairs = [_pick(random, CONSONANTS) + _pick(random, VOWELS) for _ in range(syllables)]
        return "".join(pairs) + (_pick(random, CONSONANTS) if random.uniform() < 0.5 else "")
    return "".join(random.choice(list(LETTERS), int(random.integers(2, 7))))


def caption(recipe: Recipe, random: np.random.Generator, rough: bool = True, note_chance: float = 0.4) -> str:
    """Describe a recipe in a random wording. Attributes are omitted at random, never contradicted.

    Args:
        recipe: The sound.
        random: Source of the wording.
        rough: Add words without meaning and change letter case, as in prompts that people write.
        note_chance: Probability that the note of a pitched sound is named.
    """
    noun = _pick(random, NOUNS[recipe.kind])
    phrases = [phrase for phrase in _phrases(recipe) if random.uniform() < 0.88]
    if recipe.kind == "riser" and recipe.motion < 0 and random.uniform() < 0.4:
        noun = _pick(random, DOWNLIFTERS)
    random.shuffle(phrases)
    note = ""
    if recipe.note is not None and random.uniform() < note_chance:
        note = note_name(recipe.note, flats=bool(random.uniform() < 0.3))
    style = random.uniform()
    if style < 0.3:
        words = [noun, *(_pick(random, before) for before, _ in phrases), *([note] if note else [])]
        random.shuffle(words)
        text = (", " if random.uniform() < 0.4 else " ").join(words)
    else:
        before: list[str] = []
        after: list[str] = []
        for adjectives, clauses in phrases:
            if random.uniform() < 0.65:
                before.append(_pick(random, adjectives))
            else:
                after.append(_pick(random, clauses))
        if note and random.uniform() < 0.4:
            before.append(note)
        elif note:
            after.append(_pick(random, ("on {}", "at {}", "note {}", "playing {}", "{}", "in {}")).format(note))
        joint = ", " if random.uniform() < 0.3 else " "
        body = joint.join(before) + (" " if before else "") + noun
        join_after = _pick(random, (" ", " and ", ", "))
        tail = join_after.join(after)
        ending = _pick(random, AFTER)
        text = _pick(random, BEFORE) + (
            f"{body}{ending} {tail}" if random.uniform() < 0.5 and ending.isalpha() else f"{body} {tail}{ending}"
        )
    return _roughen(text, random) if rough else text


def _roughen(text: str, random: np.random.Generator) -> str:
    """Add filler words and change letter case, as in prompts that people write."""
    words = text.split()
    if random.uniform() < 0.45:
        # before and after the caption rather than within it, as in a sentence
        words = [_filler(random) for _ in range(int(random.integers(4)))] + words
        words += [_filler(random) for _ in range(int(random.integers(4)))]
    while random.uniform() < 0.15:
        words.insert(int(random.integers(len(words) + 1)), _filler(random))
    text = " ".join(words)
    case = random.uniform()
    if case < 0.12:
        text = text.capitalize()
    elif case < 0.145:
        text = text.upper()
    elif case < 0.17:
        text = text.title()
    return text
