"""Column types that mean the same in every SQL database: names, texts, JSON and times in UTC."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, TEXT, BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL = ("mysql", "mariadb")
"""What SQLAlchemy calls the dialects of these two servers."""
_UNLIMITED = ("postgresql", "sqlite")


def binary_collation(dialect: Dialect) -> str | None:
    """The collation in which texts differ if any code point does; None: the database's own way is this."""
    if dialect.name == "postgresql":
        return "C"
    if dialect.name in MYSQL:
        # The usual utf8mb4_bin takes "a" and "a " for the same.
        return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return None


class Name(TypeDecorator[str]):
    """A text that is compared and ordered by code point, trailing spaces and all.

    Where a database must know it to index the column, `length` is the most characters it may have.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        collation = binary_collation(dialect)
        if dialect.name in MYSQL:
            if self.length is None:
                return mysql.LONGTEXT(charset="utf8mb4", collation=collation)
            return mysql.VARCHAR(self.length, charset="utf8mb4", collation=collation)
        if dialect.name in _UNLIMITED:
            return TEXT(collation=collation)
        return String(self.length) if self.length else Text()


class Prose(TypeDecorator[str]):
    """A text of any length that is only kept."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        if dialect.name in MYSQL:
            return mysql.LONGTEXT(charset="utf8mb4", collation=binary_collation(dialect))
        return TEXT()


class Json(TypeDecorator[Any]):
    """A JSON object or list; None is SQL's NULL."""

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        if dialect.name == "postgresql":
            return postgresql.JSONB(none_as_null=True)
        if dialect.name == "sqlite":
            # For SQLite a column of the type JSON is one of numbers.
            return TEXT()
        return JSON(none_as_null=True)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """See `TypeDecorator`."""
        if value is None or dialect.name != "sqlite":
            return value
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """See `TypeDecorator`."""
        return json.loads(value) if isinstance(value, str) and dialect.name == "sqlite" else value


class UtcTime(TypeDecorator[datetime]):
    """A point in time to the microsecond; what comes back is aware, and in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        if dialect.name in MYSQL:
            return mysql.DATETIME(fsp=6)
        if dialect.name == "sqlite":
            return TEXT()
        return DateTime(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """See `TypeDecorator`; a time without a zone is a `ValueError`."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time needs a zone")
        value = value.astimezone(UTC)
        if dialect.name == "sqlite":
            # Texts of one length, so that they sort; SQLiteAdapter writes the same.
            return value.isoformat(timespec="microseconds")
        return value.replace(tzinfo=None) if dialect.name in MYSQL else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """See `TypeDecorator`."""
        return None if value is None else to_utc(value)


def to_utc(value: Any) -> datetime:
    """Read a time as databases hold it: a datetime or a text, in UTC where it has no zone, or the
    milliseconds since 1970 that some programs keep in SQLite.
    """
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, UTC)
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


BigInt = BigInteger().with_variant(Integer(), "sqlite")
"""An integer of 64 bits."""


class now(FunctionElement[datetime]):
    """The database's own time, as the default of a `UtcTime` column."""

    inherit_cache = True
    type = UtcTime()


@compiles(now)
def _now(element: now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return {
        "postgresql": "now()",
        "sqlite": "(strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))",
        "mysql": "(UTC_TIMESTAMP(6))",
        "mariadb": "(UTC_TIMESTAMP(6))",
    }.get(compiler.dialect.name, "CURRENT_TIMESTAMP")


class empty_object(FunctionElement[Any]):
    """`{}`, as the default of a `Json` column."""

    inherit_cache = True
    type = Json()


@compiles(empty_object)
def _empty_object(element: empty_object, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "('{}')" if compiler.dialect.name in MYSQL else "'{}'"
