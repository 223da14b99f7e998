"""Declarations of the model families without torch: components, layout of the sound, defaults, capabilities, licences.

The engine's half of each declaration, with the code that runs the family, is in `timbred.engine.families`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from timbred.models import embeddings
from timbred.models.embeddings import ReadTensorInputs
from timbred.models.pocket import MIN_SECONDS
from timbred.protocol.keys import SchedulerName

Stage = Literal["denoiser", "codec", "text"]
"""Part of the work that a component with weights belongs to; only one stage must be on the device at once."""

Capability = Literal[
    "negative", "weights", "init", "inpaint", "bands", "extend", "windows", "loop", "early", "transcription", "rank",
    "lyrics", "task", "reference", "key", "bpm", "lora",
]  # fmt: skip
"""Things that a family can do, each with keys of `generate`:

- `negative`, `weights`, `transcription`, `lyrics`, `task`, `reference`, `key`, `bpm`, `lora`: the keys of these names;
- `init`: starting from audio; `inpaint`: regenerating a part of it; `bands`: only some of its frequencies;
- `extend`: continuing audio, up to the model's longest length; `windows`: also beyond it;
- `loop`: an end that meets the start;
- `early`: decoding in pieces, so that the sound can be played before all of it is decoded;
- `rank`: comparing takes with the prompt.
"""

ReadConfig = Callable[[str], dict[str, Any]]
"""Returns the configuration of a component by its name."""


@dataclass(frozen=True)
class Component:
    """A component of a family's pipeline.

    Attributes:
        classes: The classes that it may have; empty for any, where the class isn't used.
        stage: Stage of its weights; None for components without weights.
        is_optional: True if a checkpoint may lack it.
    """

    classes: tuple[str, ...]
    stage: Stage | None = None
    is_optional: bool = False


@dataclass(frozen=True)
class SoundFacts:
    """The sounds that a checkpoint makes, and the defaults for making them.

    Attributes:
        rate: Sample rate in Hz.
        channels: Channels of the sound.
        default_seconds: Length without another request.
        max_seconds: Longest length.
        steps: Denoising steps.
        guidance: Guidance scale; 1 without guidance.
        scheduler: Noise scheduler.
        min_seconds: Shortest length that is rendered; shorter sounds are cut.
    """

    rate: int
    channels: int
    default_seconds: float
    max_seconds: float
    steps: int
    guidance: float
    scheduler: SchedulerName
    min_seconds: float = 0.1


@dataclass(frozen=True)
class Licence:
    """The licence of a family's published weights: its name, and what it means for sounds that are sold."""

    name: str
    selling: str


@dataclass(frozen=True)
class Family:
    """A family: one architecture of a pipeline in diffusers' format.

    Attributes:
        name: The project's name for it.
        spec: Module and name of its declaration in `timbred.engine.families`.
        pipelines: Names of the pipelines in `model_index.json`; the first is the usual one.
        components: The components of the pipeline that are loaded, in the order of loading.
        libraries: Names of the libraries in `model_index.json` beside diffusers and transformers.
        read_sound: Reads the facts from the components' configurations.
        capabilities: What the family can do.
        schedulers: The noise schedulers it can use.
        licence: Licence of its published weights.
        read_tensor_inputs: Returns the tensors that a file of embeddings may hold.
        speaking: Component classes with which a checkpoint speaks a transcription.
        max_tokens: Tokens that an encoder reads at most, by the name of its tokenizer, where fewer than the tokenizer
            names.
    """

    name: str
    spec: tuple[str, str]
    pipelines: tuple[str, ...]
    components: Mapping[str, Component]
    libraries: tuple[str, ...]
    read_sound: Callable[[ReadConfig], SoundFacts]
    capabilities: frozenset[Capability]
    schedulers: tuple[SchedulerName, ...]
    licence: Licence
    read_tensor_inputs: ReadTensorInputs
    speaking: frozenset[str] = frozenset()
    max_tokens: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def weighted(self) -> tuple[str, ...]:
        """The components that have weights."""
        return tuple(name for name, component in self.components.items() if component.stage is not None)

    def stage_parts(self, stage: Stage) -> tuple[str, ...]:
        """Return the components of a stage."""
        return tuple(name for name, component in self.components.items() if component.stage == stage)


STAGES: tuple[Stage, ...] = ("denoiser", "codec", "text")
"""All stages, the most important first."""

MAX_RATE_HZ = 1_000_000
"""Highest sample rate of a model."""

AUDIOLDM_MAX_SECONDS = 60.0
"""Longest sound of the mel families, whose networks take any length."""


def _mel_sound(guidance: float) -> Callable[[ReadConfig], SoundFacts]:
    """Return a reader of facts for a UNet over mel spectrograms."""

    def read(config: ReadConfig) -> SoundFacts:
        vocoder, vae, unet = config("vocoder"), config("vae"), config("unet")
        rate = _positive(int(vocoder["sampling_rate"]))
        hop = _positive(math.prod(int(factor) for factor in vocoder["upsample_rates"]))
        rows = _positive(int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1))
        trained = rows * hop / rate
        return SoundFacts(rate, 1, trained, max(AUDIOLDM_MAX_SECONDS, trained), 20, guidance, "dpm++2m")

    return read


def _positive(number: int) -> int:
    """Return a number.

    Raises:
        ValueError: It is less than 1.
    """
    if number < 1:
        raise ValueError(f"{number} where a positive number is needed")
    return number


_DIFFUSION_SCHEDULERS: tuple[SchedulerName, ...] = (
    "ddim", "dpm++2m", "dpm++2m-karras", "euler", "euler-a", "heun", "lms", "pndm", "unipc",
)  # fmt: skip
"""Schedulers of networks that were trained on a discrete noise schedule."""

_MEL_CAPABILITIES: frozenset[Capability] = frozenset(
    {"negative", "weights", "init", "inpaint", "bands", "extend", "windows", "loop", "early", "lora"}
)
_HEARING: frozenset[Capability] = frozenset({"rank"})
_NON_COMMERCIAL = Licence("CC-BY-NC-SA-4.0", "no: for non-commercial use only")

_CLAP_TOKENIZER = Component(("RobertaTokenizer", "RobertaTokenizerFast", "PreTrainedTokenizerFast"))
_T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast")
_SCHEDULER = Component(())

AUDIOLDM2 = Family(
    name="audioldm2",
    spec=("audioldm", "AUDIOLDM2"),
    pipelines=("AudioLDM2Pipeline",),
    components={
        "vae": Component(("AutoencoderKL",), "codec"),
        "text_encoder": Component(("ClapModel", "ClapTextModelWithProjection"), "text"),
        "text_encoder_2": Component(("T5EncoderModel", "VitsModel"), "text"),
        "projection_model": Component(("AudioLDM2ProjectionModel",), "text"),
        "language_model": Component(("GPT2Model", "GPT2LMHeadModel"), "text"),
        "tokenizer": _CLAP_TOKENIZER,
        "tokenizer_2": Component((*_T5_TOKENIZERS, "VitsTokenizer")),
        "feature_extractor": Component(("ClapFeatureExtractor",)),
        "unet": Component(("AudioLDM2UNet2DConditionModel",), "denoiser"),
        "scheduler": _SCHEDULER,
        "vocoder": Component(("SpeechT5HifiGan",), "codec"),
    },
    libraries=("audioldm2",),
    read_sound=_mel_sound(guidance=3.5),
    capabilities=_MEL_CAPABILITIES | _HEARING,
    schedulers=_DIFFUSION_SCHEDULERS,
    licence=_NON_COMMERCIAL,
    read_tensor_inputs=embeddings.audioldm2_inputs,
    speaking=frozenset({"VitsModel"}),
)
"""AudioLDM 2 (arXiv 2308.05734)."""

AUDIOLDM = Family(
    name="audioldm",
    spec=("audioldm", "AUDIOLDM"),
    pipelines=("AudioLDMPipeline",),
    components={
        "vae": Component(("AutoencoderKL",), "codec"),
        "text_encoder": Component(("ClapModel", "ClapTextModelWithProjection"), "text"),
        "tokenizer": _CLAP_TOKENIZER,
        "unet": Component(("UNet2DConditionModel",), "denoiser"),
        "scheduler": _SCHEDULER,
        "vocoder": Component(("SpeechT5HifiGan",), "codec"),
    },
    libraries=(),
    read_sound=_mel_sound(guidance=2.5),
    capabilities=_MEL_CAPABILITIES,
    schedulers=_DIFFUSION_SCHEDULERS,
    licence=_NON_COMMERCIAL,
    read_tensor_inputs=embeddings.clap_vector_inputs,
)
"""AudioLDM (arXiv 2301.12503)."""


MUSICLDM = Family(
    name="musicldm",
    spec=("audioldm", "MUSICLDM"),
    pipelines=("MusicLDMPipeline",),
    components={
        "vae": Component(("AutoencoderKL",), "codec"),
        "text_encoder": Component(("ClapModel",), "text"),
        "tokenizer": _CLAP_TOKENIZER,
        "feature_extractor": Component(("ClapFeatureExtractor",)),
        "unet": Component(("UNet2DConditionModel",), "denoiser"),
        "scheduler": _SCHEDULER,
        "vocoder": Component(("SpeechT5HifiGan",), "codec"),
    },
    libraries=(),
    read_sound=_mel_sound(guidance=2.0),
    capabilities=_MEL_CAPABILITIES | _HEARING,
    schedulers=_DIFFUSION_SCHEDULERS,
    licence=Licence("unknown", "unknown: ask the publisher of the weights"),
    read_tensor_inputs=embeddings.clap_vector_inputs,
)
"""MusicLDM (arXiv 2308.01546)."""


def _stable_audio_sound(config: ReadConfig) -> SoundFacts:
    vae, transformer, scheduler = config("vae"), config("transformer"), config("scheduler")
    rate, channels = _positive(int(vae["sampling_rate"])), _positive(int(vae["audio_channels"]))
    hop = _positive(math.prod(int(ratio) for ratio in vae["downsampling_ratios"]))
    longest = _positive(int(transformer["sample_size"])) * hop / rate
    named: dict[object, SchedulerName] = {
        "EDMDPMSolverMultistepScheduler": "edm-dpm",
        "EDMEulerScheduler": "edm-euler",
    }
    scheduler_name = named.get(scheduler.get("_class_name"), "cosine-dpm")
    return SoundFacts(rate, channels, min(10.0, longest), longest, 100, 7.0, scheduler_name)


_STABILITY = Licence("Stability AI Community", "yes, below the yearly revenue that the licence names")

STABLE_AUDIO = Family(
    name="stable-audio",
    spec=("stable_audio", "STABLE_AUDIO"),
    pipelines=("StableAudioPipeline",),
    components={
        "vae": Component(("AutoencoderOobleck",), "codec"),
        "text_encoder": Component(("T5EncoderModel",), "text"),
        "projection_model": Component(("StableAudioProjectionModel",), "text"),
        "tokenizer": Component(_T5_TOKENIZERS),
        "transformer": Component(("StableAudioDiTModel",), "denoiser"),
        "scheduler": _SCHEDULER,
    },
    libraries=("stable_audio",),
    read_sound=_stable_audio_sound,
    capabilities=frozenset({"negative", "weights", "init", "inpaint", "extend", "windows", "loop", "early", "lora"}),
    schedulers=("cosine-dpm", "edm-dpm", "edm-euler"),
    licence=_STABILITY,
    read_tensor_inputs=embeddings.stable_audio_inputs,
)
"""Stable Audio and Stable Audio Open (arXiv 2407.14358)."""


def _stable_audio_3_sound(config: ReadConfig) -> SoundFacts:
    vae, embedder, scheduler = config("vae"), config("duration_embedder"), config("scheduler")
    rate, channels = _positive(int(vae["sampling_rate"])), _positive(int(vae["audio_channels"]))
    _positive(int(vae["patch_size"]) * math.prod(int(stride) for stride in vae["encoder_strides"]))
    longest = float(embedder["max_val"])
    if not 0.1 < longest < math.inf:
        raise ValueError(f"a longest sound of {longest} s")
    distilled = bool(scheduler.get("stochastic_sampling", False))
    steps, name = (8, "ping-pong") if distilled else (100, "flow-euler")
    guidance = 1.0 if distilled else 7.0
    return SoundFacts(rate, channels, min(10.0, longest), longest, steps, guidance, name)


STABLE_AUDIO_3 = Family(
    name="stable-audio-3",
    spec=("stable_audio", "STABLE_AUDIO_3"),
    pipelines=("StableAudio3Pipeline", "StableAudio3AudioToAudioPipeline", "StableAudio3InpaintPipeline"),
    components={
        "vae": Component(("AutoencoderSAME",), "codec"),
        "text_encoder": Component(("T5GemmaEncoderModel",), "text"),
        "tokenizer": Component(("GemmaTokenizer", "GemmaTokenizerFast", "PreTrainedTokenizerFast")),
        "duration_embedder": Component(("StableAudio3DurationEmbedder",), "text"),
        "transformer": Component(("StableAudio3DiTModel",), "denoiser"),
        "scheduler": _SCHEDULER,
    },
    libraries=("stable_audio_3",),
    read_sound=_stable_audio_3_sound,
    capabilities=frozenset({"negative", "weights", "init", "inpaint", "extend", "windows", "loop", "early", "lora"}),
    schedulers=("ping-pong", "flow-euler"),
    licence=Licence(
        "Stability AI Community, Gemma terms",
        "yes, below the yearly revenue that the licence names",
    ),
    read_tensor_inputs=embeddings.stable_audio_3_inputs,
    max_tokens={"tokenizer": 256},
)
"""Stable Audio 3 (arXiv 2605.17991)."""


def _ace_step_sound(config: ReadConfig) -> SoundFacts:
    vae, transformer = config("vae"), config("transformer")
    rate, channels = _positive(int(vae["sampling_rate"])), _positive(int(vae["audio_channels"]))
    _positive(math.prod(int(ratio) for ratio in vae["downsampling_ratios"]))
    distilled = bool(transformer.get("is_turbo")) or transformer.get("model_version") == "turbo"
    steps, guidance = (8, 1.0) if distilled else (50, 7.0)
    return SoundFacts(rate, channels, 30.0, ACE_STEP_MAX_SECONDS, steps, guidance, "flow-euler")


ACE_STEP_MAX_SECONDS = 600.0
"""Longest sound that ACE-Step was trained for."""

ACE_STEP = Family(
    name="ace-step",
    spec=("ace_step", "ACE_STEP"),
    pipelines=("AceStepPipeline",),
    components={
        "vae": Component(("AutoencoderOobleck",), "codec"),
        "text_encoder": Component(("Qwen3Model",), "text"),
        "tokenizer": Component(("Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizerFast")),
        "condition_encoder": Component(("AceStepConditionEncoder",), "text"),
        "audio_tokenizer": Component(("AceStepAudioTokenizer",), "text", is_optional=True),
        "audio_token_detokenizer": Component(("AceStepAudioTokenDetokenizer",), "text", is_optional=True),
        "transformer": Component(("AceStepTransformer1DModel",), "denoiser"),
        "scheduler": _SCHEDULER,
    },
    libraries=("ace_step",),
    read_sound=_ace_step_sound,
    capabilities=frozenset(
        {"init", "inpaint", "extend", "windows", "loop", "lyrics", "task", "reference", "key", "bpm", "lora"}
    ),
    schedulers=("flow-euler", "ping-pong"),
    licence=Licence("MIT", "yes"),
    read_tensor_inputs=embeddings.ace_step_inputs,
)
"""ACE-Step 1.5."""

POCKET = Family(
    name="pocket",
    spec=("pocket", "POCKET"),
    pipelines=(),
    components={
        "text_encoder": Component(("TextSide",), "text"),
        "generator": Component(("Generator",), "denoiser"),
        "vae": Component(("BandCodec",), "codec"),
        "ear": Component(("Ear",), "text", is_optional=True),
    },
    libraries=(),
    read_sound=lambda config: pocket_sound(config("pocket")),
    capabilities=frozenset({"negative", "weights", "init", "inpaint", "bands", "extend", "loop", "bpm", "rank"}),
    schedulers=("flow-euler",),
    licence=Licence("Apache-2.0", "yes"),
    read_tensor_inputs=embeddings.no_inputs,
)
"""The embedded model's own family: its folder has one JSON file and one file of tensors."""


def pocket_sound(card: Mapping[str, Any]) -> SoundFacts:
    """Return the sounds of a model of the family pocket, from the content of its `pocket.json`."""
    rate, channels, longest = int(card["sample_rate"]), int(card["channels"]), float(card["max_seconds"])
    steps, guidance = int(card["steps"]), float(card["guidance"])
    return SoundFacts(rate, channels, min(2.0, longest), longest, steps, guidance, "flow-euler", MIN_SECONDS)


FAMILIES: tuple[Family, ...] = (AUDIOLDM2, AUDIOLDM, MUSICLDM, STABLE_AUDIO, STABLE_AUDIO_3, ACE_STEP)
"""All families whose folders are in diffusers' format."""


def family_of(pipeline: object) -> Family | None:
    """Return the family of a pipeline's name in `model_index.json`; None for others."""
    return next((family for family in FAMILIES if pipeline in family.pipelines), None)
