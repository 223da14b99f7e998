"""The daemon's end of the player process."""
