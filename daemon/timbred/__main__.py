"""The program: `timbred`, or `python -m timbred`."""

import gc
import os

from timbred.ipc.isolation import forget_working_folder

gc.disable()  # imports make no garbage; commands that run for long enable it
forget_working_folder(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from timbred.cli import main as commands  # nothing that it imports may come from the working folder
from timbred.ipc.child_exit import exit_immediately, has_other_threads


def main() -> None:
    """Run the program, and exit without the interpreter's clean-up, which takes a tenth of a second."""
    try:
        commands.main()
    except SystemExit as ending:
        if has_other_threads() or not isinstance(ending.code, int | None):
            raise
        exit_immediately(ending.code or 0)


if __name__ == "__main__":
    main()
