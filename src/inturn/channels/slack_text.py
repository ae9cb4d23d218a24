"""Slack's text: its markup turned into plain text, and plain text escaped for it."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"<([^<>]*)>|&(amp|lt|gt);")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LINKED_BY_SLACK = re.compile(r"(?:https?://|mailto:|tel:)")


def plain_text(text: str) -> str:
    """Turn Slack's text into what its reader sees.

    `<@U1>` becomes `@U1`, `<@U1|ann>` `@ann`, `<#C1|news>` `#news`, `<!here>` `@here`, `<https://x|label>`
    `label (https://x)`; an address that Slack itself has made a link of becomes what was typed. What is
    escaped is so once: `&amp;lt;` becomes `&lt;`.
    """
    return _MARKUP.sub(_plain, text)


def escape(text: str) -> str:
    """Escape a plain text, so that Slack shows it as it is: no mention, no link under other words."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escaped_length(text: str) -> int:
    """The characters that `escape(text)` has."""
    return len(text) + 4 * text.count("&") + 3 * (text.count("<") + text.count(">"))


def _plain(match: re.Match[str]) -> str:
    if match[2]:
        return _ENTITIES[match[2]]
    target, _, label = match[1].partition("|")
    kind, named = target[:1], target[1:]
    if kind and kind in "@#" and named:
        return kind + (_unescaped(label).removeprefix(kind) or named)
    if kind == "!" and named:
        return _special(named, _unescaped(label))
    if _SCHEME.match(target):
        return _link(_unescaped(target), _unescaped(label))
    return match[0]


def _special(named: str, label: str) -> str:
    if named in ("here", "channel", "everyone"):
        return f"@{named}"
    return label or f"@{named.rpartition('^')[2]}"


def _link(target: str, label: str) -> str:
    if not label or label in (target, _LINKED_BY_SLACK.sub("", target, count=1)):
        return label or target
    return f"{label} ({target})"


def _unescaped(text: str) -> str:
    return re.sub(r"&(amp|lt|gt);", lambda match: _ENTITIES[match[1]], text)
