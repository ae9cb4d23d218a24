"""Scripts: Lua scripts by name, run on one Redis and loaded where it does not have them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from redis import Redis

T = TypeVar("T")


class Scripts:
    """The scripts `lua/<name>.lua` of these names, with what they share (`lua/<common>.lua`) before each.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, *names: str, common: str | None = None) -> None:
        self._redis = redis
        self._scripts = {name: _Script(*([common] if common else []), name) for name in names}

    def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run one script; gives its reply."""
        script = self._scripts[name]
        with redis_errors():
            return self._loaded([script], lambda: self._redis.evalsha(script.sha, len(keys), *keys, *args))

    def pipeline(self, calls: Sequence[tuple[str, Sequence[str], tuple[str | int, ...]]]) -> list[Any]:
        """Run one script several times in one round trip, as (name, keys, arguments); gives the replies."""
        if not calls:
            return []

        def execute() -> list[Any]:
            with self._redis.pipeline(transaction=False) as pipe:
                for name, keys, args in calls:
                    pipe.evalsha(self._scripts[name].sha, len(keys), *keys, *args)
                return list(pipe.execute())

        with redis_errors():
            return self._loaded([self._scripts[name] for name in {name for name, *_ in calls}], execute)

    def _loaded(self, scripts: Sequence[_Script], call: Callable[[], T]) -> T:
        from redis.exceptions import NoScriptError

        try:
            return call()
        except NoScriptError:
            # A server that has just (re)started. In a pipeline nothing has run: all calls are of one name.
            for script in scripts:
                self._redis.script_load(script.text)
            return call()


class _Script:
    def __init__(self, *names: str) -> None:
        self.text = "".join((files("inturn.turns") / "lua" / f"{name}.lua").read_text() for name in names)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
