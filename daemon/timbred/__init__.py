"""timbred: a background service that renders audio from text for music software."""

__version__ = "0.1.0"
