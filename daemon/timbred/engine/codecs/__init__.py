"""Codecs between latents and audio."""
