"""The vocabulary of the model, from the tables of the data set."""

from timbred.models.pocket import GeneratorSizes, TextSizes, Vocabulary
from training.pocket.effects import EFFECTS
from training.pocket.instruments import DRUMS, INSTRUMENTS, KITS, SHARED_KEYS, UNPITCHED
from training.pocket.patterns import STYLES
from training.pocket.recordings import RECORDINGS
from training.pocket.sounds import CHORDS, SCALES
from training.pocket.words import LOOPS, SYNTHESISED

VOCABULARY = Vocabulary(
    instruments=INSTRUMENTS,
    unpitched=tuple((bank, program, names) for (bank, program), names in UNPITCHED.items()),
    drums=DRUMS,
    kits=KITS,
    shared_keys=SHARED_KEYS,
    recordings=RECORDINGS,
    synthesised=SYNTHESISED,
    chords=CHORDS,
    scales=SCALES,
    styles=STYLES,
    loops=LOOPS,
    effects={name: (*effect.before, *effect.after) for name, effect in EFFECTS.items()},
)
CHOICES = VOCABULARY.choices
KINDS = CHOICES["kind"]
CONDITION_SIZE = VOCABULARY.condition_size(TextSizes().vector)
SIZES = GeneratorSizes(CONDITION_SIZE)
"""Sizes of the generator that is trained."""
