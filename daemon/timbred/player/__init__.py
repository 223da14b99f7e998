"""Playback: the daemon's client, the mixer, and the player process."""
