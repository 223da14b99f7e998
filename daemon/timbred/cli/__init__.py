"""The command line: `timbred`."""
