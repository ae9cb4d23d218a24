"""What the SQL adapters share: the tables' names, and the queries, which are files in this folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Self

from inturn.persistence.naming import read_names

# PostgreSQL cuts names off at 63 bytes; the longest index name adds 16 to its table's.
_NAME = re.compile(r"(?:[A-Za-z_]\w{0,62}\.)?[A-Za-z_]\w{0,46}", re.ASCII)
_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of the tables, each with its schema where one is given (`chat.sessions`)."""

    sessions: str = "agent_sessions"
    messages: str = "agent_messages"
    turns: str = "agent_turns"

    @classmethod
    def named(cls, names: Mapping[str, str] | None) -> Self:
        """Read an adapter's option `tables`: names for `sessions`, `messages` and `turns`.

        Names not given are the defaults, or, if `sessions` is given, made from it: `chat` gives
        `chat_messages` and `chat_turns`, so that two sets of tables never share one.

        Raises `ConfigurationError` for a name that is no plain identifier of at most 47 characters.
        """
        return cls(
            **read_names(
                "tables",
                names,
                _NAME.fullmatch,
                "use letters, digits and underscores, at most 47, perhaps after a schema and a dot",
            )
        )

    def indexes(self) -> dict[str, str]:
        """The names of the indexes, by the name that the queries have for them.

        The seed's for its tables (`idx_sessions_updated`), for others made from the table's.
        """
        names = {}
        for kind, suffixes in _INDEXES.items():
            table = getattr(self, kind)
            default = table == getattr(Tables(), kind)
            schema, dot, bare = table.rpartition(".")
            for suffix in suffixes:
                names[f"{kind}_{suffix}"] = (
                    f"idx_{kind}_{suffix}" if default else f"{schema}{dot}{bare}_{suffix}_idx"
                )
        return names


_INDEXES = {
    "sessions": ("user_status", "updated"),
    "messages": ("session", "created", "user"),
}


def read_queries(dialect: str) -> dict[str, str]:
    """Read `<dialect>.sql`: queries under headings `-- name: <name>`, without their comments."""
    text = resources.files(__name__).joinpath(f"{dialect}.sql").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    return {
        name: _COMMENT.sub("", query).strip() for name, query in zip(parts[::2], parts[1::2], strict=True)
    }
