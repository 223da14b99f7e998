"""The player process: the only package that opens audio devices."""
