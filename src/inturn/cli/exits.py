"""Exit codes: what a script is told, and the same by every command."""

from __future__ import annotations

from inturn.errors import ConfigurationError, InturnError, InvalidInputError, TurnTimeoutError

DONE = 0
FAILED = 1
WRONG = 2
TIMED_OUT = 3
AWAY = 4
INTERRUPTED = 130
CLOSED_PIPE = 141

MEANINGS = {
    DONE: "it is done",
    FAILED: "the answer is no, or something failed",
    WRONG: "wrong use: an option, a value, a file or a setting",
    TIMED_OUT: "nothing came in time; it is not lost",
    AWAY: "a server cannot be reached, or has no room now: the same command may succeed later",
    INTERRUPTED: "stopped by Ctrl-C",
    CLOSED_PIPE: "whoever read the output has gone",
}
"""What each of them means, in one line."""


def code_of(error: InturnError) -> int:
    """The exit code of an error of ours."""
    if isinstance(error, TurnTimeoutError):
        return TIMED_OUT
    if isinstance(error, ConfigurationError | InvalidInputError):
        return WRONG
    return AWAY if error.retryable else FAILED
