"""Overlap: what becomes of a turn that comes while its session is busy."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Final, get_args

from inturn.contract import OverlapPolicy, RespondPayload
from inturn.errors import InvalidInputError
from inturn.settings import LONGEST_QUIET, Settings
from inturn.turns.payloads import MOST_IMAGES

MOST_MERGED: Final = 20
"""Turns that may become one."""
_WHOLE: Final = 10_000  # as in lua/common.lua
_JOINING: Final = ("merge", "interrupt")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A turn's policy, and what the scripts need to know to merge it.

    Turns that wait behind each other in the same `group` become one while their `share`s of what one message
    may be (10,000 is all of it) come to no more than the whole; "": never. `quiet_ms` is how long to wait
    for another one.
    """

    policy: OverlapPolicy = "enqueue"
    group: str = ""
    share: int = 0
    quiet_ms: int = 0


ENQUEUE: Final = Overlap()
"""A turn that is taken by itself, in its place."""


def overlap_of(
    settings: Settings,
    payload: RespondPayload,
    encoded: str,
    *,
    policy: OverlapPolicy | None = None,
    quiet: float | None = None,
) -> Overlap:
    """The policy of a user's message: the one that is given, else that of its channel, else that of all.

    `encoded` is the payload as it goes into the mailbox. Raises `InvalidInputError` for a policy that does
    not exist, and for a quiet time that is none, or that goes with another policy than `merge`.
    """
    if policy is None:
        policy = settings.overlap_on(payload.channel)
    elif policy not in get_args(OverlapPolicy):
        raise InvalidInputError(f"no such overlap: {policy!r}; use {', '.join(get_args(OverlapPolicy))}")
    if quiet is None:
        quiet = settings.quiet_on(payload.channel) if policy == "merge" else 0.0
    elif isinstance(quiet, bool) or not isinstance(quiet, int | float) or not 0 <= quiet <= LONGEST_QUIET:
        raise InvalidInputError(f"quiet must be seconds from 0 to {LONGEST_QUIET:g}, not {quiet!r}")
    elif quiet and policy != "merge":
        raise InvalidInputError(f"quiet goes with overlap='merge', not with {policy!r}")
    if policy == "interrupt" and payload.bound:
        # Nobody has looked yet whose the session is, and so whose turn it would end.
        policy = "merge"
    if policy not in _JOINING:
        return Overlap(policy)
    return Overlap(policy, _group(payload), _share(settings, payload, encoded), round(quiet * 1000))


def _group(payload: RespondPayload) -> str:
    """Messages of one user that are answered at the same place, and with the same rights."""
    bound = ["bound"] if payload.bound else []
    place = json.dumps([payload.user_id, payload.channel, payload.address, *bound], sort_keys=True)
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def _share(settings: Settings, payload: RespondPayload, encoded: str) -> int:
    parts = (
        (len(payload.message) + 1) / settings.max_message_chars,
        len(payload.images) / MOST_IMAGES,
        len(encoded.encode()) / settings.max_payload_bytes,
        1 / MOST_MERGED,
    )
    return min(_WHOLE, math.ceil(_WHOLE * max(parts)))
