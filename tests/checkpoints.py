"""Checkpoints of all families with tiny random components, saved as their makers publish them."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from diffusers.pipelines.audioldm2 import modeling_audioldm2
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder
from safetensors.torch import load_file, save_file
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    GemmaTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
    T5GemmaConfig,
    T5GemmaEncoderModel,
    T5GemmaModuleConfig,
    T5Tokenizer,
    VitsConfig,
    VitsModel,
    VitsTokenizer,
)

# diffusers' annotations say less than its classes take
AudioLDM2Pipeline: Any = diffusers.AudioLDM2Pipeline
AudioLDMPipeline: Any = diffusers.AudioLDMPipeline
AutoencoderKL: Any = diffusers.AutoencoderKL
UNet2DConditionModel: Any = diffusers.UNet2DConditionModel
AudioLDM2UNet2DConditionModel: Any = modeling_audioldm2.AudioLDM2UNet2DConditionModel
AudioLDM2ProjectionModel: Any = modeling_audioldm2.AudioLDM2ProjectionModel
AceStepPipeline: Any = diffusers.AceStepPipeline
MusicLDMPipeline: Any = diffusers.MusicLDMPipeline
StableAudioPipeline: Any = diffusers.StableAudioPipeline
StableAudio3Pipeline: Any = diffusers.StableAudio3Pipeline

LETTERS = "abcdefghijklmnopqrstuvwxyz .,'-0123456789"


def _clap_tokenizer() -> Any:
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *LETTERS])}
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[])
    tokenizer.model_max_length = 40
    return tokenizer


def _t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.model_max_length = 40
    return tokenizer


def _vits_tokenizer(folder: Path) -> Any:
    """Letters as tokens, without blanks between them. AudioLDM 2 puts token 182 at a transcription's end."""
    names = ["<pad>", "<unk>", *LETTERS]
    names += [chr(0x4E00 + number) for number in range(190 - len(names))]
    file = folder / "letters.json"
    file.write_text(json.dumps({name: index for index, name in enumerate(names)}))
    tokenizer = VitsTokenizer(str(file), add_blank=False, phonemize=False, language="en")
    tokenizer.model_max_length = 40
    return tokenizer


def _vits() -> Any:
    return VitsModel(
        VitsConfig(
            vocab_size=190,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=32,
            flow_size=24,
            spectrogram_bins=17,
            upsample_initial_channel=32,
            upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1]],
            duration_predictor_filter_channels=16,
            duration_predictor_num_flows=1,
            depth_separable_num_layers=1,
            prior_encoder_num_flows=1,
            prior_encoder_num_wavenet_layers=1,
            posterior_encoder_num_wavenet_layers=1,
        )
    )


def _vae() -> Any:
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=8,
        sample_size=64,
    )


def _vocoder() -> SpeechT5HifiGan:
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=16,
            sampling_rate=16000,
            upsample_initial_channel=64,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1, 3]],
            normalize_before=False,
        )
    )


def _scheduler() -> diffusers.DDIMScheduler:
    return diffusers.DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _clap_text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "projection_dim": 16,
    }


def audioldm2(folder: Path, seed: int = 0) -> Path:
    """An AudioLDM 2 checkpoint whose index names GPT2Model, as the published ones do."""
    torch.manual_seed(seed)
    tokenizer_2 = _t5_tokenizer()
    return _audioldm2(folder, tokenizer_2, _t5(tokenizer_2))


def audioldm2_speech(folder: Path, seed: int = 0) -> Path:
    """An AudioLDM 2 checkpoint that speaks: VITS reads the transcription."""
    torch.manual_seed(seed)
    tokenizer_2 = _vits_tokenizer(folder)
    positions = {"use_learned_position_embedding": True, "max_seq_length": tokenizer_2.model_max_length}
    return _audioldm2(folder, tokenizer_2, _vits(), positions)


def _clap(tokenizer: Any) -> ClapModel:
    audio = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "spec_size": 64,
        "num_mel_bins": 64,
        "patch_size": 2,
        "patch_stride": [2, 2],
        "window_size": 8,
    }
    return ClapModel(ClapConfig(text_config=_clap_text(tokenizer), audio_config=audio, projection_dim=16))


def _clap_feature_extractor() -> ClapFeatureExtractor:
    return ClapFeatureExtractor(feature_size=64, sampling_rate=48000, hop_length=7680, truncation="rand_trunc")


def clap(folder: Path, seed: int = 0) -> Path:
    """A CLAP as it is published alone: model, tokenizer and feature extractor in one folder."""
    torch.manual_seed(seed)
    tokenizer = _clap_tokenizer()
    for part in (_clap(tokenizer), tokenizer, _clap_feature_extractor()):
        part.save_pretrained(folder)
    return folder


def _audioldm2(folder: Path, tokenizer_2: Any, text_encoder_2: Any, projection: dict[str, Any] | None = None) -> Path:
    tokenizer = _clap_tokenizer()
    clap = _clap(tokenizer)
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=128, vocab_size=40))
    gpt2.config.max_new_tokens = 8
    unet = AudioLDM2UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=[[None, 16, 24], [None, 16, 24]],
        attention_head_dim=4,
    )
    AudioLDM2Pipeline(
        vae=_vae(),
        text_encoder=clap,
        text_encoder_2=text_encoder_2,
        projection_model=AudioLDM2ProjectionModel(
            text_encoder_dim=16, text_encoder_1_dim=24, langauge_model_dim=16, **(projection or {})
        ),
        language_model=gpt2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        feature_extractor=_clap_feature_extractor(),
        unet=unet,
        scheduler=_scheduler(),
        vocoder=_vocoder(),
    ).save_pretrained(folder)
    _rename_language_model(folder)
    return folder


def _rename_language_model(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["language_model"] = ["transformers", "GPT2Model"]
    (folder / "model_index.json").write_text(json.dumps(index))


def pickle_weights(folder: Path) -> Path:
    """Turn a checkpoint's weights into `.bin` files, as older ones were published."""
    for file in folder.glob("*/*.safetensors"):
        stem = "pytorch_model" if file.stem == "model" else file.stem
        torch.save(load_file(file), file.with_name(f"{stem}.bin"))
        file.unlink()
    return folder


def louden(folder: Path) -> Path:
    """Amplify a checkpoint's vocoder, which is all but silent with initial weights."""
    (weights,) = (folder / "vocoder").glob("*.safetensors")
    tensors = {name: tensor * 12.0 if "weight" in name else tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    return folder


def _class_conditioned_unet() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=(8, 16),
        attention_head_dim=4,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=16,
        class_embeddings_concat=True,
    )


def audioldm(folder: Path, seed: int = 0) -> Path:
    """An AudioLDM checkpoint."""
    torch.manual_seed(seed)
    tokenizer = _clap_tokenizer()
    unet = _class_conditioned_unet()
    AudioLDMPipeline(
        vae=_vae(),
        text_encoder=ClapTextModelWithProjection(ClapTextConfig(**_clap_text(tokenizer))),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        vocoder=_vocoder(),
    ).save_pretrained(folder)
    return folder


WAVE_RATE = 8000
"""Sample rate in Hz of the tiny checkpoints of waveform families."""


def _t5(tokenizer: Any) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
        )
    )


def _random_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Replace weights that are initialised to 0 or nearly so, through which nothing would be heard."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.std(correction=0) < 1e-3:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def _oobleck() -> Any:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[4, 4, 8],
        channel_multiples=[1, 2, 2],
        decoder_channels=8,
        decoder_input_channels=4,
        audio_channels=2,
        sampling_rate=WAVE_RATE,
    )


def stable_audio(folder: Path, seed: int = 0) -> Path:
    """A Stable Audio checkpoint: stereo, 0.512 s at most in 32 rows of latents."""
    torch.manual_seed(seed)
    tokenizer = _t5_tokenizer()
    StableAudioPipeline(
        vae=_random_weights(_oobleck()),
        text_encoder=_t5(tokenizer),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=24, conditioning_dim=16, min_value=0, max_value=32
        ),
        tokenizer=tokenizer,
        transformer=diffusers.StableAudioDiTModel(
            sample_size=32,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            num_key_value_attention_heads=1,
            out_channels=4,
            cross_attention_dim=16,
            time_proj_dim=16,
            global_states_input_dim=32,
            cross_attention_input_dim=16,
        ),
        scheduler=diffusers.CosineDPMSolverMultistepScheduler(),
    ).save_pretrained(folder)
    return folder


def _gemma_tokenizer() -> Any:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    tokenizer = GemmaTokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    tokenizer.model_max_length = 40
    return tokenizer


ATTENTION_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
"""Sizes of the tiny networks with grouped attention."""


def _t5gemma(tokenizer: Any) -> Any:
    part = T5GemmaModuleConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=1,
        query_pre_attn_scalar=8,
        **ATTENTION_SIZES,
    )
    return T5GemmaEncoderModel(
        T5GemmaConfig(encoder=part, decoder=part, vocab_size=len(tokenizer), is_encoder_decoder=False)
    )


def stable_audio_3(folder: Path, seed: int = 0, distilled: bool = True) -> Path:
    """A Stable Audio 3 checkpoint, stereo, of up to 8 s: distilled for ping-pong steps, or for plain ones."""
    torch.manual_seed(seed)
    tokenizer = _gemma_tokenizer()
    transformer = diffusers.StableAudio3DiTModel(
        io_channels=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        cond_token_dim=16,
        global_cond_dim=16,
        local_add_cond_dim=9,
        timestep_features_dim=16,
        ff_mult=2.0,
        num_memory_tokens=4,
    )
    vae = diffusers.AutoencoderSAME(
        audio_channels=2,
        patch_size=16,
        encoder_channels=8,
        encoder_c_mults=[2],
        encoder_strides=[4],
        encoder_transformer_depths=[2],
        latent_dim=8,
        dim_heads=8,
        sampling_rate=WAVE_RATE,
    )
    StableAudio3Pipeline(
        vae=_random_weights(vae),
        text_encoder=_t5gemma(tokenizer),
        tokenizer=tokenizer,
        duration_embedder=StableAudio3DurationEmbedder(output_dim=16, fourier_dim=16, max_val=8.0),
        transformer=_random_weights(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1, shift=1.0, stochastic_sampling=distilled
        ),
    ).save_pretrained(folder)
    return folder


def musicldm(folder: Path, seed: int = 0) -> Path:
    """A MusicLDM checkpoint."""
    torch.manual_seed(seed)
    tokenizer = _clap_tokenizer()
    MusicLDMPipeline(
        vae=_vae(),
        text_encoder=_clap(tokenizer),
        tokenizer=tokenizer,
        feature_extractor=_clap_feature_extractor(),
        unet=_class_conditioned_unet(),
        scheduler=_scheduler(),
        vocoder=_vocoder(),
    ).save_pretrained(folder)
    return folder


def _qwen_tokenizer() -> Any:
    names = ["<|endoftext|>", "<unk>", *LETTERS, *LETTERS[:26].upper(), "#", "\n", ":", "/", "[", "]", "Ġ", "Ċ"]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token="<unk>")
    tokenizer.model_max_length = 4096
    return tokenizer


def ace_step(folder: Path, seed: int = 0, turbo: bool = True, covers: bool = True) -> Path:
    """An ACE-Step checkpoint, stereo: distilled or not, and with or without the audio tokenizer that covers need."""
    torch.manual_seed(seed)
    tokenizer = _qwen_tokenizer()
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            num_hidden_layers=1,
            **ATTENTION_SIZES,
        )
    )
    sizes: dict[str, Any] = {**ATTENTION_SIZES, "sliding_window": 16}
    condition_encoder = AceStepConditionEncoder(
        text_hidden_dim=16,
        timbre_hidden_dim=4,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        **sizes,
    )
    condition_encoder.silence_latent.normal_()
    pool: dict[str, Any] = {**sizes, "audio_acoustic_hidden_dim": 4, "num_attention_pooler_hidden_layers": 1}
    transformer = diffusers.AceStepTransformer1DModel(
        in_channels=12, audio_acoustic_hidden_dim=4, num_hidden_layers=2, is_turbo=turbo, **sizes
    )
    with torch.no_grad():  # so that the words are heard
        for name, parameter in transformer.named_parameters():
            if "cross_attn.to_out" in name:
                parameter.mul_(20)
    AceStepPipeline(
        vae=_random_weights(_oobleck()),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=_random_weights(transformer),
        condition_encoder=condition_encoder,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=AceStepAudioTokenizer(fsq_dim=16, fsq_input_levels=[4, 4, 4], **pool) if covers else None,
        audio_token_detokenizer=AceStepAudioTokenDetokenizer(**pool) if covers else None,
    ).save_pretrained(folder)
    return folder
