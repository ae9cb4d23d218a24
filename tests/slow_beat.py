"""Beat's scheduler, which says when it opens its file, and takes its time."""

import sys
import time
from typing import Any

from worker.beat import Scheduler


class Slow(Scheduler):
    def _open_schedule(self) -> Any:
        opened = super()._open_schedule()  # type: ignore[misc]  # the stubs do not know it
        sys.stdout.write("opening\n")
        sys.stdout.flush()
        time.sleep(1)
        return opened
