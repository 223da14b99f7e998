"""Mixing of voices into blocks for one audio device."""
