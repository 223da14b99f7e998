"""Model files and cards, read without torch."""
