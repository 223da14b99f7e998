"""Audio processing from clip to clip."""
