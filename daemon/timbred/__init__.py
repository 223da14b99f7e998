"""timbred: sound models kept warm, played like an instrument."""

__version__ = "0.1.0"
