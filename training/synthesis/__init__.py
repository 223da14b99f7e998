"""Synthesised sounds: oscillators, envelopes, filters, reverb, and the kinds of sounds that use them."""
