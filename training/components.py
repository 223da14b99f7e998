"""Classes of diffusers and timbred without their annotations, which are narrower than the arguments and results."""

from typing import Any

import diffusers
from diffusers.pipelines.audioldm2 import modeling_audioldm2

from timbred.engine.codecs import spectral_vocoder

AutoencoderKL: Any = diffusers.AutoencoderKL
AudioLDM2UNet2DConditionModel: Any = modeling_audioldm2.AudioLDM2UNet2DConditionModel
SpectralVocoder: Any = spectral_vocoder.SpectralVocoder
