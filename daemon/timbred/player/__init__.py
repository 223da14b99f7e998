"""The daemon's side of playback."""
