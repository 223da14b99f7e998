"""CLAP (arXiv 2211.06687): embeddings of takes and of texts, which rank takes and find similar ones."""

import hashlib
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from timbred.engine.device import precision_of
from timbred.engine.diffusion.conditioner import Conditioner
from timbred.engine.diffusion.conditioning import average_parts
from timbred.engine.diffusion.generation import Embeddings, RenderedSounds
from timbred.models.long_texts import divide, windows_of


class ClapConditioner(Conditioner):
    """Conditioner of a pipeline whose `text_encoder` is CLAP with its audio side."""

    @torch.inference_mode()
    def embed_takes(self, sounds: RenderedSounds) -> Embeddings:
        """Return the embeddings of takes by the model's own CLAP."""
        pipeline = self.pipeline
        encoder_rate = int(pipeline.feature_extractor.sampling_rate)
        # the feature extractor crops longer audio at a random place
        max_samples = int(pipeline.feature_extractor.nb_max_samples)
        resampled = [soxr.resample(waveform, sounds.rate, encoder_rate)[:max_samples] for waveform in sounds.mono]
        features = pipeline.feature_extractor(resampled, return_tensors="pt", sampling_rate=encoder_rate).input_features
        inputs = features.to(self.device, precision_of(pipeline.text_encoder))
        outputs = self.stages.run_stage("text", lambda: pipeline.text_encoder.get_audio_features(input_features=inputs))
        return Embeddings(unit_vectors(outputs), weights_digest(pipeline.text_encoder.audio_projection))

    @torch.inference_mode()
    def score_takes(self, prompt: str, embeddings: Embeddings) -> list[float]:
        """Return the cosine similarity of the prompt and each take."""
        parts = divide(prompt, windows_of((self.pipeline.tokenizer,)))
        vectors = self.stages.run_stage("text", lambda: [self._embed_text(part.text) for part in parts])
        return (embeddings.vectors @ unit_vectors(average_parts(vectors, parts))[0]).tolist()

    def _embed_text(self, text: str) -> torch.Tensor:
        """Return CLAP's unit embedding of a text."""
        inputs = self.pipeline.tokenizer(text, return_tensors="pt", padding=True).to(self.device)
        return torch.from_numpy(unit_vectors(self.pipeline.text_encoder.get_text_features(**inputs)))


def unit_vectors(outputs: Any) -> NDArray[np.float32]:
    """Return the embeddings in CLAP's outputs as unit vectors, (rows, dimensions)."""
    embeddings = outputs if isinstance(outputs, torch.Tensor) else outputs.pooler_output
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


def weights_digest(projection: torch.nn.Module) -> str:
    """Return a name for the weights that embeddings come from, equal in any precision of at least bfloat16's."""
    content = hashlib.blake2b(digest_size=8)
    for weights in projection.state_dict().values():
        content.update(weights.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
    return content.hexdigest()
