"""Generation: conditioning, sampling and the denoiser."""
