"""The player process: the only place that touches sound devices. Started as `python -m timbred.delivery.playback`."""
