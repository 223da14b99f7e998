"""A request to the running daemon over ZeroMQ, with the samples in the answer: prints what comes back.

python bridges/python/first_request_zmq.py "a bright bell" --port 7771
"""

import argparse
import json
import sys
import uuid

import numpy as np
import zmq

PATIENCE = 60_000
"""Milliseconds without any answer after which there is no daemon."""


def ask(port: int, prompt: str) -> np.ndarray:
    """Ask for a sound of one second and return its samples: shape (frames, channels), -1 to 1."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as line:
        line.set(zmq.RCVTIMEO, PATIENCE)
        line.set(zmq.LINGER, 0)
        line.connect(f"tcp://127.0.0.1:{port}")
        line.send_json({"type": "generate", "id": uuid.uuid4().hex, "prompt": prompt, "seconds": 1, "inline": True})
        samples = np.zeros((0, 1), np.float32)
        while True:
            first, *frames = line.recv_multipart()
            event = json.loads(first)
            print(event, file=sys.stderr)
            if event["type"] == "take":
                samples = np.frombuffer(frames[0], "<f4").reshape(-1, event["channels"])
            if event["type"] == "done":
                return samples
            if event["type"] in ("fail", "cancelled"):
                sys.exit(1)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("prompt", nargs="?", default="a deep punchy kick drum")
    options.add_argument("--port", type=int, default=7771)
    given = options.parse_args()
    sound = ask(given.port, given.prompt)
    print(f"{len(sound)} frames of {sound.shape[1]} channel(s), loudest {abs(sound).max():.3f}")
