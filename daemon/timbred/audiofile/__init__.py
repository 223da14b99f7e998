"""Audio files: reading, writing, chunks and tags."""
