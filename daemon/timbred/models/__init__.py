"""Model files and descriptions, read without torch."""
