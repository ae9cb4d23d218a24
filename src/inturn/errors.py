"""Every error of inturn.

    InturnError
    ├── ConfigurationError           a setting, a dotted path, a URL
    │   ├── MissingDriverError       the URL's driver is not installed
    │   └── AgentDefinitionError     an agent that cannot work as declared
    ├── InvalidInputError            (ValueError) a value that is refused before anything is written
    ├── SessionError
    │   ├── SessionNotFoundError
    │   ├── SessionAccessError       the session is not one of the user it is asked for
    │   ├── SessionConflictError     the session moved on since it was loaded        retryable
    │   ├── SessionErasedError       the session, or its user, was erased after the turn was accepted
    │   ├── SessionMigrationError    its state could not be brought to our schema version
    │   └── SessionTooNewError       its state is of a newer schema version          retryable
    ├── StoreError                   the database answered with an error
    │   ├── EncryptionKeyError       our keys do not open what is stored             retryable
    │   └── StoreUnavailableError    the database could not be reached               retryable
    │       └── AuditUnavailableError  the audit log cannot be written               retryable
    ├── MailboxError                 Redis answered with an error
    │   ├── MailboxUnavailableError  Redis could not be reached                      retryable
    │   ├── MailboxFullError         the session has too many waiting turns          retryable
    │   ├── OverloadedError          too many turns wait in all                      retryable
    │   └── SessionBusyError         refused by `reject`: a turn waits or runs        retryable
    ├── ProviderError                the language model's answer, or the lack of one
    │   └── ProviderUnavailableError 429, 5xx, time-out, lost connection             retryable
    ├── ModelBudgetError             the shared budget of the model is used up       retryable
    ├── ChannelError
    │   ├── ForgedRequestError       a webhook that the platform did not send
    │   ├── DeliveryUnavailableError nothing was sent; may be tried again             retryable
    │   ├── DeliveryRefusedError     the platform refuses the reply for good
    │   └── DeliveryUnknownError     nobody can tell whether it was sent
    └── TurnError
        ├── TurnFailedError          the turn was recorded as failed
        ├── TurnCancelledError       the turn was taken out of the mailbox
        ├── TurnTimeoutError         (TimeoutError) no result within the time given
        └── TurnTimeLimitError       one try of the turn took too long                retryable

An error's default message is the first paragraph of its class's docstring, so that writing the one
writes the other. No message ever contains the text of a conversation: messages end in logs, in Flower
and in result backends.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

__all__ = [
    "AgentDefinitionError",
    "AuditUnavailableError",
    "ChannelError",
    "ConfigurationError",
    "DeliveryRefusedError",
    "DeliveryUnavailableError",
    "DeliveryUnknownError",
    "EncryptionKeyError",
    "ForgedRequestError",
    "InturnError",
    "InvalidInputError",
    "MailboxError",
    "MailboxFullError",
    "MailboxUnavailableError",
    "MissingDriverError",
    "ModelBudgetError",
    "OverloadedError",
    "ProviderError",
    "ProviderUnavailableError",
    "SessionAccessError",
    "SessionBusyError",
    "SessionConflictError",
    "SessionErasedError",
    "SessionError",
    "SessionMigrationError",
    "SessionNotFoundError",
    "SessionTooNewError",
    "StoreError",
    "StoreUnavailableError",
    "TurnCancelledError",
    "TurnError",
    "TurnFailedError",
    "TurnTimeLimitError",
    "TurnTimeoutError",
]


class InturnError(Exception):
    """Something went wrong in inturn."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without any change by the caller."""

    def __init__(self, message: str | None = None) -> None:
        if message is None:
            message = " ".join((inspect.getdoc(type(self)) or "").split("\n\n")[0].split())
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (prefork, result backends); subclasses keep extra attributes.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[InturnError], args: tuple[Any, ...], state: dict[str, Any]) -> InturnError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(InturnError):
    """A setting is missing or wrong; the message names it and a value that works."""


class MissingDriverError(ConfigurationError):
    """The URL asks for a driver that is not installed; install the extra that the message names."""


class AgentDefinitionError(ConfigurationError):
    """The agent cannot work as declared; the message names the field and the mend."""


class InvalidInputError(InturnError, ValueError):
    """A value was refused; nothing was written."""


class SessionError(InturnError):
    """An operation on a session failed."""


class SessionNotFoundError(SessionError):
    """There is no session with this ID."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id!r}; create it with get_or_create() first")
        self.session_id = session_id


class SessionAccessError(SessionError):
    """There is no session with this ID among those of the user that it is asked for.

    Whether it is somebody else's or nobody's is not told; nothing was read or written.
    """

    def __init__(self, session_id: str, user_id: str | None = None) -> None:
        super().__init__(session_id)
        # Celery makes it anew from these.
        self.args = (session_id, user_id)
        self.session_id = session_id
        self.user_id = user_id

    def __str__(self) -> str:
        whose = "the user that the turn is bound to" if self.user_id is None else f"user {self.user_id!r}"
        return f"{whose} has no session {self.session_id!r}"


class SessionConflictError(SessionError):
    """The session was changed by somebody else since it was loaded; load it again and repeat.

    `expected_version` is what the caller had loaded (0: a session that did not exist yet),
    `actual_version` what the store holds (None: the session is gone).
    """

    retryable = True

    def __init__(self, session_id: str, expected_version: int, actual_version: int | None) -> None:
        found = "it is gone" if actual_version is None else f"the store holds version {actual_version}"
        super().__init__(
            f"session {session_id!r} moved on: expected version {expected_version}, {found}; "
            "load it again and repeat"
        )
        self.session_id = session_id
        self.expected_version = expected_version
        self.actual_version = actual_version


class SessionErasedError(SessionError):
    """The session, or the user it belonged to, was erased after the turn was accepted; nothing is written."""


class SessionMigrationError(SessionError):
    """The session has an older schema version, and `migrate_session` could not bring it to ours.

    Nothing was written: mend `migrate_session`, and the session goes on where it was.
    """


class SessionTooNewError(SessionError):
    """The session has a newer schema version than this process knows; a newer process can work on it.

    While a new release is rolled out that is to be expected: nothing was written, and the call may be
    repeated until one of the new processes takes it.
    """

    retryable = True


class StoreError(InturnError):
    """The database refused an operation."""


class EncryptionKeyError(StoreError):
    """What is stored was sealed with a key that is not in INTURN_ENCRYPTION_KEYS; put the key back.

    Nothing was written, and nothing is lost: with the key the same call succeeds. `key_id` is the key's ID
    (None: it was sealed by a later release).
    """

    retryable = True

    def __init__(self, key_id: str | None, session_id: str, *, is_known: bool = False) -> None:
        if key_id is None:
            said = "by a later release of inturn; leave it to processes of that release"
        elif is_known:
            said = (
                f"with another key than the {key_id!r} that is in INTURN_ENCRYPTION_KEYS, or was changed "
                "since; put the right key back under this ID"
            )
        else:
            said = (
                f"with key {key_id!r}, which is not in INTURN_ENCRYPTION_KEYS; put it back, behind the newest"
            )
        super().__init__(f"session {session_id!r} was sealed {said}")
        self.key_id = key_id
        self.session_id = session_id


class StoreUnavailableError(StoreError):
    """The database could not be reached, or the connection was lost; repeat the call.

    Whether a commit that ended so has happened is told by its turn ID: repeat it, and a turn that is
    already there is answered from the store. `turn_id` is the ID to repeat with, where the call was one that
    enqueues a turn.
    """

    retryable = True
    turn_id: str | None = None


class AuditUnavailableError(StoreUnavailableError):
    """The audit log cannot be written, and without it nothing is read or changed; repeat the call.

    A change that ends so has not happened.
    """


class MailboxError(InturnError):
    """Redis refused an operation on a mailbox."""


class MailboxUnavailableError(MailboxError):
    """Redis could not be reached; nothing is half accepted: repeat the call with the same turn ID.

    `turn_id` is the ID to repeat with, where the call had one.
    """

    retryable = True

    def __init__(self, message: str | None = None, *, turn_id: str | None = None) -> None:
        super().__init__(message)
        self.turn_id = turn_id


class MailboxFullError(MailboxError):
    """The session has as many waiting turns as it may have; try again once some are done."""

    retryable = True

    def __init__(self, session_id: str, waiting: int) -> None:
        super().__init__(
            f"session {session_id!r} has {waiting} waiting turns, which is the limit "
            "(INTURN_MAX_WAITING); try again once some are done"
        )
        self.session_id = session_id
        self.waiting = waiting


class OverloadedError(MailboxError):
    """Too many turns wait in all sessions together; try again in `retry_after` seconds."""

    retryable = True

    def __init__(self, waiting: int, *, retry_after: float = 5.0) -> None:
        super().__init__(
            f"about {waiting} turns wait, which is the limit (INTURN_MAX_WAITING_TOTAL); "
            f"try again in {retry_after:g} seconds"
        )
        self.waiting = waiting
        self.retry_after = retry_after


class SessionBusyError(MailboxError):
    """The session is busy, and the message was sent with `overlap="reject"`; nothing was added."""

    retryable = True

    def __init__(self, session_id: str, waiting: int) -> None:
        super().__init__(
            f"session {session_id!r} is busy with {waiting} turns, and this one is not to wait (overlap "
            "'reject'); try again once they are done, or send it with overlap='enqueue'"
        )
        self.session_id = session_id
        self.waiting = waiting


class ProviderError(InturnError):
    """The language model's provider refused the request or answered with something unusable."""


class ProviderUnavailableError(ProviderError):
    """The language model cannot answer now (429, 5xx, time-out or lost connection); try later.

    `retry_after` is the provider's own wish in seconds, where it stated one.
    """

    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelBudgetError(InturnError):
    """The budget of the language model that all workers share is used up; try again later.

    `retry_after` is in how many seconds. No call of the model was made.
    """

    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ChannelError(InturnError):
    """A channel refused something, or was refused."""


class ForgedRequestError(ChannelError):
    """The request was not sent by the platform, or not just now; nothing was accepted."""


class DeliveryUnavailableError(ChannelError):
    """The platform took nothing; the same may be sent later.

    `retry_after` is the platform's own wish in seconds, where it stated one.
    """

    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeliveryRefusedError(ChannelError):
    """The platform refused the reply, and would refuse it again."""


class DeliveryUnknownError(ChannelError):
    """It is not known whether the platform took the reply."""


class TurnError(InturnError):
    """A turn did not end with a reply."""

    def __init__(self, message: str | None = None, *, turn_id: str | None = None) -> None:
        super().__init__(message)
        self.turn_id = turn_id


class TurnFailedError(TurnError):
    """The turn failed and was recorded as failed; the session goes on with the next one."""


class TurnCancelledError(TurnError):
    """The turn was cancelled before it ran."""


class TurnTimeoutError(TurnError, TimeoutError):
    """The turn has no result yet; it is not lost: ask again with the same handle."""


class TurnTimeLimitError(TurnError):
    """One try of the turn took too long; it is tried again, as after any other failure.

    `seconds` is the limit.
    """

    retryable = True

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"one try of the turn took longer than {seconds:g} s (INTURN_TURN_SECONDS); look for what hangs, "
            "or raise the limit"
        )
        self.seconds = seconds
