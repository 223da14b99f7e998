"""Messages, their ranges and their bytes; no I/O."""
