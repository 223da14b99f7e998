"""Sounds made in code: oscillators, envelopes, filters, rooms, and the kinds built from them."""
