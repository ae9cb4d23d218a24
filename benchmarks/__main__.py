"""`python -m benchmarks`: all benchmarks, one after another; or one by its name, with its options."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

NAMES = (
    *("serialised", "hot", "in_flight", "drain", "history", "peers_history"),
    *("enqueue", "growth", "webhooks", "recovery", "retention", "encryption"),
)
"""Those that are run without a name, in this order."""


def main() -> int:
    """Run them; the exit code is the first one that is not 0."""
    given = sys.argv[1:]
    if given and not given[0].startswith("-"):
        runs = [given]
    else:
        runs = [[name, *given] for name in NAMES if find_spec(f"benchmarks.{name}") is not None]
    codes = [subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *rest]) for name, *rest in runs]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
