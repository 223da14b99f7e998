"""The program: `timbred`, or `python -m timbred`."""

import os

from timbred.ipc.isolation import forget_working_folder

forget_working_folder(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from timbred.cli.main import main  # nothing that it imports may come from the working folder

if __name__ == "__main__":
    main()
