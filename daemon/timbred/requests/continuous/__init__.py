"""Continuous playback: the plan of its segments and their controller."""
