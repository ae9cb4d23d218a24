"""Compaction: a conversation made to fit the model's budget of tokens; no row is ever rewritten.

What helps least goes first: long outputs of tools are shortened, then older lines are replaced by a summary
that is kept with the session and stands for their rows, and only a prompt that is still too long loses its
oldest lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inturn.agent.context import Scene
from inturn.agent.prompt import digest_request
from inturn.agent.provider import ModelReply, ModelRequest
from inturn.agent.schema import clean
from inturn.session.state import HistoryItem, Summary

FILL = 0.8
"""The share of the budget that a conversation may take: the rest is for instructions, data and the answer."""
KEEP = 4
"""The last lines of a conversation, which are never summed up."""
SHORT = 500
"""Characters that are left of a tool's output, once the conversation is too long."""
SUMMARY = "summary"
"""The name of the message of role `system` that records a summary."""
_IMAGE = 1000
"""Tokens that an image counts for: about what a provider makes of one of middle size."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: one for every four bytes.

    That is usual for English; scripts of several bytes a character come out about right too.
    """
    return len(text.encode(errors="replace")) // 4 + 1


def conversation(scene: Scene) -> list[HistoryItem]:
    """The lines before this message that the model is told: the summary, then what came after it."""
    session = scene.session
    window = scene.definition.history_window
    lines = list(session.history[-window:]) if window else []
    if session.summary is None or session.summary.through <= session.history_start:
        return [line for line in lines if _is_told(line)]
    lines = lines[-after:] if (after := max(0, scene.length - session.summary.through)) else []
    told = HistoryItem(
        role="user", content=f"Summary of what was said before, not a message: {session.summary.text}"
    )
    return [told, *(line for line in lines if _is_told(line))]


def compact(
    scene: Scene, budget: int | None, ask: Callable[[ModelRequest], ModelReply]
) -> tuple[list[HistoryItem], Summary | None]:
    """The lines to tell the model, within the budget, and the summary if a new one was made."""
    lines = conversation(scene)
    if budget is None:
        return lines, None
    room = int(budget * FILL) - estimate_tokens(scene.message.content)
    if _size(lines) <= room:
        return lines, None
    lines = [_shortened(line) for line in lines[:-KEEP]] + lines[-KEEP:]
    if _size(lines) <= room:
        return lines, None
    old, rest = lines[:-KEEP], lines[-KEEP:]
    summary = None
    if len(old) > 1:
        # The first line may be the last summary, which must not fall out of the next.
        reply = ask(digest_request(scene, [old[0], *_tail(old[1:], int(budget * FILL))]))
        text = clean(reply.data.get("summary"))
        if isinstance(text, str) and text.strip():
            summary = Summary(text=text.strip(), through=scene.length - _rows(scene, rest))
            scene.session.summary = summary
            lines = conversation(scene)
    return _tail([_shortened(line) for line in lines], room), summary


def _is_told(line: HistoryItem) -> bool:
    # What was summed up is told by the session; an empty line is a reply that was stopped at once.
    return not (line.role == "system" and line.name == SUMMARY) and bool(line.content.strip() or line.images)


def _rows(scene: Scene, rest: Sequence[HistoryItem]) -> int:
    """How many rows of the window the last lines take, those that are not told included."""
    window, told = scene.session.history, 0
    for count, line in enumerate(reversed(window), 1):
        told += _is_told(line)
        if told == len(rest):
            return count
    return len(window)


def _size(lines: Sequence[HistoryItem]) -> int:
    return sum(estimate_tokens(line.content) + _IMAGE * len(line.images or ()) for line in lines)


def _shortened(line: HistoryItem) -> HistoryItem:
    if line.role != "tool" or len(line.content) <= SHORT:
        return line
    left = f"{line.content[:SHORT]} [shortened: {len(line.content)} characters]"
    return line.model_copy(update={"content": left})


def _tail(lines: Sequence[HistoryItem], room: int) -> list[HistoryItem]:
    """As many of the last lines as there is room for; the last one is cut if it alone is too long."""
    kept: list[HistoryItem] = []
    for line in reversed(lines):
        room -= _size([line])
        if room < 0 and kept:
            break
        kept.insert(0, line)
    if room < 0 and len(kept) == 1:
        kept = [kept[0].model_copy(update={"content": kept[0].content[: max(0, room + _size(kept)) * 4]})]
    return kept
