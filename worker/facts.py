"""Facts: what may be told of an error."""

from __future__ import annotations

import traceback

from inturn.errors import InturnError


def facts(error: Exception) -> dict[str, str]:
    """What may be logged of an error: ours in full, of a stranger's the class and the lines of code.

    Its message may quote the user.
    """
    if isinstance(error, InturnError):
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": type(error).__name__, "stack": "".join(traceback.format_tb(error.__traceback__))}
