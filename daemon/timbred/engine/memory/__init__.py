"""Device and host memory of the resident models."""
