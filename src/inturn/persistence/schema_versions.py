"""SchemaVersions: brings stored sessions into the shape that the running code expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import structlog

from inturn.errors import InvalidInputError, SessionMigrationError, SessionTooNewError
from inturn.session.state import SessionState, build

MigrateSession: TypeAlias = Callable[[SessionState, int | None], SessionState]
"""Brings a session from an older version (None: it has none) to the present one, and returns it.

It may change the session it is given, is called for each load until the session is next saved, and must have
no effect elsewhere.
"""

_KEPT = ("id", "version", "message_count")

_log = structlog.get_logger(__name__)


class SchemaVersions:
    """The version that sessions are to have, and how older ones get there.

    Without `version` sessions stay as they are, whatever theirs is.
    """

    def __init__(self, version: int | None = None, migrate: MigrateSession | None = None) -> None:
        if version is None and migrate is not None:
            raise InvalidInputError("migrate_session needs a schema_version to bring sessions to")
        if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
            raise InvalidInputError(f"schema_version must be a whole number from 0, not {version!r}")
        self.version = version
        self.migrate = migrate
        self._warned: set[int | None] = set()

    def stamp(self, session: SessionState) -> SessionState:
        """A session as it may be saved: a new one without a version gets ours.

        Raises `SessionTooNewError`.
        """
        self._refuse_newer(session)
        if self.version is not None and session.version == 0 and session.schema_version is None:
            return session.model_copy(update={"schema_version": self.version})
        return session

    def present(self, session: SessionState) -> SessionState:
        """A session that was loaded, as the running code expects it.

        Raises `SessionTooNewError`, and `SessionMigrationError` if `migrate` raises or returns what is not
        this session. Without `migrate` an older session stays as it is, and keeps its version whenever it
        is saved, for nobody has brought it to ours; a warning tells of each such version once.
        """
        self._refuse_newer(session)
        old = session.schema_version
        if self.version is None or old == self.version:
            return session
        if self.migrate is None:
            if old not in self._warned:
                self._warned.add(old)
                _log.warning(
                    "sessions of another schema version, and no migrate_session",
                    stored=old,
                    expected=self.version,
                )
            return session
        kept = {name: getattr(session, name) for name in _KEPT}
        try:
            migrated = self.migrate(session, old)
        except Exception as error:
            # Its class only: what it says may be what somebody said.
            raise self._failed(session, old, f"migrate_session raised {type(error).__name__}") from error
        if not isinstance(migrated, SessionState):
            raise self._failed(session, old, f"migrate_session returned {type(migrated).__name__}")
        if changed := [name for name, value in kept.items() if getattr(migrated, name) != value]:
            raise self._failed(session, old, f"migrate_session changed {', '.join(changed)}")
        try:
            return build(SessionState, {**migrated.__dict__, "schema_version": self.version})
        except InvalidInputError as error:
            raise self._failed(session, old, str(error)) from None

    def _failed(self, session: SessionState, old: int | None, why: str) -> SessionMigrationError:
        return SessionMigrationError(
            f"session {session.id!r} could not be brought from schema version {old} to {self.version}: {why}"
        )

    def _refuse_newer(self, session: SessionState) -> None:
        newer = session.schema_version
        if self.version is not None and newer is not None and newer > self.version:
            raise SessionTooNewError(
                f"session {session.id!r} has schema version {newer}, this process knows {self.version}; "
                "newer processes can work on it"
            )
