"""Handing sounds over: files that appear whole, and playback."""
