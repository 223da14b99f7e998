"""From the model's samples to a finished file: steps from Clip to Clip, then encoding."""
