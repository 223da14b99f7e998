"""Takes on disk and the library that records them."""
