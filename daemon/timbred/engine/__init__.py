"""The engine process: models, diffusion, codecs and memory; the only package that imports torch."""
