"""The names an adapter's three places (tables, collections, indices) go by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inturn.errors import ConfigurationError

KINDS = ("sessions", "messages", "turns")


def read_names(
    option: str, names: Mapping[str, str] | None, allowed: Callable[[str], object], rule: str
) -> dict[str, str]:
    """Read an adapter's option that names its places: `{"sessions": ..., "messages": ..., "turns": ...}`.

    Names not given are the seed's (`agent_sessions` and so on), or, if `sessions` is given, made from it:
    `chat` gives `chat_messages` and `chat_turns`, so that two sets of places never share one.

    Raises `ConfigurationError` for a kind that does not exist, for a name that is not `allowed` (`rule`
    says what is), and for one name given to two kinds.
    """
    given = dict(names or {})
    if unknown := given.keys() - set(KINDS):
        raise ConfigurationError(
            f"{option} has no {', '.join(sorted(map(repr, unknown)))}; name sessions, messages and turns"
        )
    for name in given.values():
        if not isinstance(name, str) or not allowed(name):
            raise ConfigurationError(f"{name!r} cannot be a name in {option}: {rule}")
    stem = given.get("sessions", "agent_sessions")
    made = {kind: f"{stem}_{kind}" if "sessions" in given else f"agent_{kind}" for kind in KINDS}
    complete = made | {"sessions": stem} | given
    if len(set(complete.values())) < len(KINDS):
        raise ConfigurationError(f"{option}: sessions, messages and turns need a name each")
    return complete
