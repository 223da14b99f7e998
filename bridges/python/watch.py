"""Print the events of all clients until Ctrl-C.

python bridges/python/watch.py take fail
"""

import argparse
import sys

from timbred.client import Timbred
from timbred.errors import TimbredError

if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("events", nargs="*", help="names of events; none for all")
    options.add_argument("--requests", type=int, help="port of ZeroMQ requests")
    options.add_argument("--port", type=int, help="port of ZeroMQ events; by default the daemon is searched for")
    arguments = options.parse_args()
    try:
        with Timbred(requests=arguments.requests, events=arguments.port) as timbred:
            for client, event in timbred.listen(*arguments.events):
                print(client, event, flush=True)
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
    except KeyboardInterrupt:
        pass
