"""What adapters do when their process forks: connections must not be shared by parent and child."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """Holds something that a fork would duplicate."""

    def before_fork(self) -> None:
        """Called in the parent: close what must not exist in the child at all."""

    def after_fork_in_child(self) -> None:
        """Called in the child, which has one thread: forget what is the parent's, without closing it."""


_watched: WeakSet[ForkAware] = WeakSet()


def watch_forks(holder: ForkAware) -> None:
    """Call `holder` at each fork of this process, for as long as it exists."""
    _watched.add(holder)


def _before() -> None:
    for holder in list(_watched):
        holder.before_fork()


def _in_child() -> None:
    for holder in list(_watched):
        holder.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_child=_in_child)
