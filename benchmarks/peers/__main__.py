"""`python -m benchmarks.peers <module> setup|enqueue|run`: one step of a peer, in its own environment."""

from __future__ import annotations

import importlib
import json
import sys
import time

from benchmarks.peers import work


def main() -> None:
    """Take the step; enqueueing prints how long it took."""
    _, name, step = sys.argv
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    if step == "enqueue":
        turns = work.planned()
        began = time.perf_counter()
        peer.enqueue(turns)
        sys.stdout.write(json.dumps({"turns": len(turns), "seconds": time.perf_counter() - began}) + "\n")
    else:
        getattr(peer, step)()


if __name__ == "__main__":
    main()
