"""A program that writes its process id and ends when its standard input closes."""

import os
import sys

print(os.getpid(), flush=True)
sys.stdin.buffer.read()
