"""A program that writes its process id and ends when its standard input closes."""

import os
import sys

if __name__ == "__main__":
    print(os.getpid(), flush=True)
    sys.stdin.buffer.read()
