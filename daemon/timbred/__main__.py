"""`python -m timbred`."""

from timbred.cli import main

main()
