"""Words for the effects of the family pocket, and the sounds that the effects suit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """One effect.

    Attributes:
        before: adjectives for the position before the noun.
        after: phrases for the position after it.
        forms: suitable forms of sounds.
        min_seconds: length of the shortest clip in which it is audible.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    forms: tuple[str, ...] = ("note", "chord", "arpeggio", "scale", "hit", "loop", "texture")
    min_seconds: float = 0.0


TONES = ("note", "chord", "arpeggio", "scale", "texture")
SINGLE = ("note", "chord", "hit", "texture")

EFFECTS: dict[str, Effect] = {
    "dark": Effect(("dark", "dull", "mellow", "warm"), ("with little treble", "dark", "without highs")),
    "bright": Effect(("bright", "crisp", "brilliant", "shiny"), ("with lots of treble", "bright")),
    "muffled": Effect(
        ("muffled", "low-passed", "filtered", "underwater"),
        ("behind a wall", "through a low-pass filter", "from the next room", "underwater"),
    ),
    "telephone": Effect(
        ("telephone", "megaphone", "band-passed", "tinny"),
        ("through a telephone", "through a small radio", "on an old radio"),
    ),
    "distortion": Effect(
        ("distorted", "overdriven", "crunchy", "saturated", "dirty"),
        ("with distortion", "through a fuzz pedal", "heavily distorted", "with overdrive"),
    ),
    "lofi": Effect(
        ("lo-fi", "lofi", "bitcrushed", "dusty", "8-bit", "low quality"),
        ("through a bit crusher", "sampled at a low rate", "from an old sampler"),
    ),
    "chorus": Effect(
        ("chorused", "detuned", "wobbly"),
        ("with chorus", "slightly out of tune", "with a chorus effect"),
        TONES,
    ),
    "tremolo": Effect(("trembling", "pulsating"), ("with tremolo", "with a tremolo effect"), TONES, min_seconds=0.8),
    "noisy": Effect(("noisy", "hissy", "breathy"), ("with noise", "with hiss"), SINGLE),
    "fade in": Effect(
        ("swelling", "slow attack"),
        ("with a slow attack", "that fades in", "fading in slowly", "that swells"),
        ("note", "chord", "texture"),
        min_seconds=0.8,
    ),
    "backwards": Effect(("reversed", "reverse", "backwards"), ("played backwards", "in reverse", "reversed"), SINGLE),
    "wide": Effect(("wide", "stereo", "wide stereo"), ("wide in stereo", "with a wide stereo image")),
    "delay": Effect(
        ("echoing", "delayed"),
        ("with delay", "with echo", "with a delay effect", "with echoes"),
        min_seconds=0.8,
    ),
    "reverb": Effect(
        ("reverberant", "spacious", "roomy", "wet"),
        ("with reverb", "in a big hall", "in a large room", "with lots of reverb", "in a cathedral", "in a cave"),
        min_seconds=0.8,
    ),
}
