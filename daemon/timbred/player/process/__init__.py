"""The player process."""
