"""Training of the embedded model: recorded and synthesised sounds, a codec with phase, a small generator."""
