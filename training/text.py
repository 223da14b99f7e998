"""The text encoders: two trained tokenizers, a small CLAP, a small T5 encoder, the projection and a small GPT-2.

`TextSide.encode` computes what `AudioLDM2Pipeline.encode_prompt` computes, with gradients.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.audioldm2 import AudioLDM2ProjectionModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from training.captions import FILLERS, caption
from training.data import draw_recipe
from training.settings import RUNS, SETTINGS

CLAP_TOKENIZER = RUNS / "tokenizer"
T5_TOKENIZER = RUNS / "tokenizer_2"
ALPHABET = [chr(code) for code in range(33, 127)]


def sample_captions(count: int, seed: int, rough: bool = True) -> list[str]:
    """Return captions of random recipes."""
    random = np.random.default_rng(seed)
    return [caption(draw_recipe(random), random, rough) for _ in range(count)]


def train_tokenizers() -> None:
    """Train both vocabularies with captions. They cover any text, by bytes or by single characters."""
    settings = SETTINGS.text
    lowered = [" ".join(text.split()) for text in sample_captions(40_000, settings.seed, rough=False)]
    lowered += [" ".join(FILLERS[start : start + 8]) for start in range(len(FILLERS))] * 8
    titled = [text.title() for text in lowered[:8000]]
    upper = [text.upper() for text in lowered[:4000]]
    corpus = lowered + titled + upper
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    vocabulary = pieces.get_vocab()
    merges: Any = [tuple(merge) for merge in _merges(pieces)]
    RobertaTokenizer(
        vocab=vocabulary, merges=merges, add_prefix_space=True, model_max_length=settings.max_tokens
    ).save_pretrained(CLAP_TOKENIZER)
    T5Tokenizer(
        vocab=_unigram(corpus), extra_ids=0, additional_special_tokens=[], model_max_length=settings.max_tokens
    ).save_pretrained(T5_TOKENIZER)


def _merges(pieces: Tokenizer) -> list[list[str]]:
    import json

    return json.loads(pieces.to_str())["model"]["merges"]


def _unigram(corpus: list[str]) -> list[tuple[str, float]]:
    """Return a unigram vocabulary with T5's special pieces first and all printable ASCII characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        corpus,
        trainers.UnigramTrainer(
            vocab_size=SETTINGS.text.vocabulary,
            special_tokens=special,
            unk_token="<unk>",
            initial_alphabet=ALPHABET,
            show_progress=False,
        ),
    )
    import json

    vocabulary = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    known = {piece for piece, _ in vocabulary}
    return vocabulary + [(character, -12.0) for character in ALPHABET if character not in known]


def load_tokenizers() -> tuple[RobertaTokenizer, T5Tokenizer]:
    """Load both tokenizers."""
    return RobertaTokenizer.from_pretrained(CLAP_TOKENIZER), T5Tokenizer.from_pretrained(T5_TOKENIZER)


class TextSide(nn.Module):
    """The four text components of the pipeline and their tokenizers."""

    def __init__(self) -> None:
        super().__init__()
        settings = SETTINGS.text
        self.tokenizer, self.tokenizer_2 = load_tokenizers()
        self.padding: Any = self.tokenizer_2.pad_token_id
        self.clap: Any = ClapModel(_clap_config(len(self.tokenizer)))
        self.t5: Any = T5EncoderModel(
            T5Config(
                vocab_size=len(self.tokenizer_2),
                d_model=settings.t5_width,
                d_kv=32,
                d_ff=2 * settings.t5_width,
                num_layers=settings.t5_layers,
                num_heads=4,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                relative_attention_num_buckets=16,
                relative_attention_max_distance=32,
            )
        )
        self.projection: Any = AudioLDM2ProjectionModel(settings.clap_width, settings.t5_width, settings.gpt_width)
        configuration: Any = GPT2Config
        self.gpt: Any = GPT2LMHeadModel(
            configuration(
                vocab_size=4,
                n_positions=2 * settings.max_tokens + 16,
                n_embd=settings.gpt_width,
                n_layer=settings.gpt_layers,
                n_head=6,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=None,
                eos_token_id=None,
                max_new_tokens=settings.generated_vectors,
            )
        )

    def tokenize(self, prompts: Sequence[str], extra_padding: int = 0, limit: int = 64) -> dict[str, Tensor]:
        """Return token ids and masks of both tokenizers, padded as in the pipeline (T5: longest + `extra_padding`)."""
        first = self.tokenizer(
            list(prompts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        second = self.tokenizer_2(list(prompts), padding=True, max_length=limit, truncation=True, return_tensors="pt")
        ids, mask = second.input_ids, second.attention_mask
        if extra_padding:
            padding = max(0, min(extra_padding, limit - ids.shape[1]))
            ids = nn.functional.pad(ids, (0, padding), value=self.padding)
            mask = nn.functional.pad(mask, (0, padding))
        return {"clap_ids": first.input_ids, "clap_mask": first.attention_mask, "t5_ids": ids, "t5_mask": mask}

    def encode(self, tokens: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the generated vectors (batch, 8, gpt width), T5 states (batch, tokens, t5 width) and CLAP vectors."""
        # columns that are padding for every prompt don't affect CLAP, whose positions count from the left
        used = int(tokens["clap_mask"].sum(1).max())
        clap = self.clap.get_text_features(
            tokens["clap_ids"][:, :used], attention_mask=tokens["clap_mask"][:, :used]
        ).pooler_output
        states = self.t5(tokens["t5_ids"], attention_mask=tokens["t5_mask"])[0]
        projected = self.projection(
            hidden_states=clap[:, None],
            hidden_states_1=states,
            attention_mask=torch.ones_like(tokens["t5_mask"][:, :1]),
            attention_mask_1=tokens["t5_mask"],
        )
        return self._generate(projected.hidden_states, projected.attention_mask), states, clap

    def _generate(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Feed the language model's last hidden state back, once for each generated vector."""
        cache = None
        generated: list[Tensor] = []
        for _ in range(SETTINGS.text.generated_vectors):
            output = self.gpt.transformer(
                inputs_embeds=inputs if cache is None else generated[-1],
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            generated.append(output.last_hidden_state[:, -1:])
            mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
        return torch.cat(generated, dim=1)


def _clap_config(vocabulary: int) -> ClapConfig:
    """Return a CLAP configuration with an untrained audio tower of the smallest size that its windows allow."""
    settings = SETTINGS.text
    return ClapConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": settings.clap_width,
            "num_hidden_layers": settings.clap_layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * settings.clap_width,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "max_position_embeddings": settings.max_tokens + 4,
            "projection_dim": settings.clap_width,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        audio_config={
            "window_size": 4,
            "num_mel_bins": 16,
            "spec_size": 64,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "patch_embeds_hidden_size": 8,
            "hidden_size": 32,
            "depths": [1, 1, 1],
            "num_attention_heads": [1, 2, 4],
            "num_hidden_layers": 3,
            "num_classes": 4,
            "projection_dim": settings.clap_width,
        },
        projection_dim=settings.clap_width,
    )


def feature_extractor() -> ClapFeatureExtractor:
    """Create the feature extractor of the minimal audio tower."""
    return ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=SETTINGS.mel.sample_rate,
        hop_length=640,
        max_length_s=1,
        fft_window_size=1024,
        frequency_max=16_000,
        truncation="rand_trunc",
        padding="repeatpad",
    )
