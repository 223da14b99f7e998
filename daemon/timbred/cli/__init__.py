"""The command line: `timbred`."""

from timbred.cli.main import main

__all__ = ["main"]
