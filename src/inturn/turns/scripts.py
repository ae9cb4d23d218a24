"""Scripts: Lua scripts by name, run on one Redis or a cluster and loaded where it does not have them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from inturn.errors import MailboxError
from inturn.turns.batch import Call, load_script, send_each
from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from redis import Redis


class Scripts:
    """The scripts `lua/<name>.lua` of these names, with what they share (`lua/<common>.lua`) before each.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, *names: str, common: str | None = None) -> None:
        self._redis = redis
        self._scripts = {name: _Script(*([common] if common else []), name) for name in names}

    def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run one script; gives its reply."""
        from redis.exceptions import NoScriptError

        script = self._scripts[name]
        with redis_errors():
            try:
                return self._redis.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:  # a server that has just (re)started
                load_script(self._redis, script.text)
                return self._redis.evalsha(script.sha, len(keys), *keys, *args)

    def pipeline(self, calls: Sequence[tuple[str, Sequence[str], tuple[str | int, ...]]]) -> list[Any]:
        """Run scripts in one round trip, as (name, keys, arguments); gives the replies.

        Where one fails, the others have run nevertheless.
        """
        replies = self.pipeline_each(calls)
        for reply in replies:
            if isinstance(reply, MailboxError):
                raise reply
        return replies

    def pipeline_each(self, calls: Sequence[tuple[str, Sequence[str], tuple[str | int, ...]]]) -> list[Any]:
        """As `pipeline`, with the error in place of the reply for those calls that failed.

        So one node of a cluster that is away keeps nobody from what the others answered.
        """
        from redis.exceptions import NoScriptError

        sent = [
            Call(keys[0], ("EVALSHA", self._scripts[name].sha, len(keys), *keys, *args))
            for name, keys, args in calls
        ]
        with redis_errors():
            replies = send_each(self._redis, sent)
            missing = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:
                for name in {calls[place][0] for place in missing}:
                    load_script(self._redis, self._scripts[name].text)
                again = send_each(self._redis, [sent[place] for place in missing])
                for place, reply in zip(missing, again, strict=True):
                    replies[place] = reply
        return [_translated(reply) if isinstance(reply, Exception) else reply for reply in replies]


def _translated(error: Exception) -> MailboxError:
    try:
        with redis_errors():
            raise error
    except MailboxError as translated:
        return translated


class _Script:
    def __init__(self, *names: str) -> None:
        self.text = "".join((files("inturn.turns") / "lua" / f"{name}.lua").read_text() for name in names)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
