"""Envelopes: what waits in Redis and in the inbox, and results, sealed with the keys of the store.

Whoever asks a mailbox, the dead letters or the inbox for a payload gets it as it was offered. What cannot be
opened here comes as it is, and is then a payload of a format that nobody reads: its turn stays where it is,
until a process that has the key takes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import structlog

from inturn.contract import SEALED_VERSION
from inturn.errors import EncryptionKeyError
from inturn.keyring import KeyRing, key_ring
from inturn.settings import Settings

_BEGINNING = '{"sealed":"'
_log = structlog.get_logger(__name__)


class Envelopes:
    """Seals with `keys` if `seals`; opens whatever is sealed."""

    def __init__(self, keys: KeyRing, *, seals: bool) -> None:
        self._keys = keys
        self._seals = seals

    @classmethod
    def of(cls, settings: Settings) -> Envelopes:
        """Those that the settings ask for (`INTURN_ENCRYPT_REDIS`)."""
        return cls(key_ring(settings.encryption_keys), seals=settings.encrypt_redis)

    @classmethod
    def none(cls) -> Envelopes:
        """Those that seal nothing, and open nothing."""
        return cls(KeyRing(), seals=False)

    def seal(self, session_id: str, payload: str) -> str:
        """Seal a payload; none, and one that is sealed already, stays as it is."""
        if not self._seals or not payload or payload.startswith(_BEGINNING):
            return payload
        envelope = {
            "sealed": self._keys.seal(payload.encode(), session_id, "payload"),
            # What a release without envelopes has to see, to leave it alone.
            "v": SEALED_VERSION,
            "kind": "respond",
            "session_id": session_id,
            "message": "",
        }
        return json.dumps(envelope, ensure_ascii=False, separators=(",", ":"))

    def open(self, session_id: str, payload: str) -> str:
        """Open a payload; one that is not sealed, or cannot be opened here, stays as it is."""
        if not payload.startswith(_BEGINNING):
            return payload
        try:
            return self._keys.open(json.loads(payload)["sealed"], session_id, "payload").decode()
        except (EncryptionKeyError, ValueError) as error:
            why = str(error) if isinstance(error, EncryptionKeyError) else type(error).__name__
            _log.warning("payload not opened", session_id=session_id, error=why)
            return payload

    def seal_result(self, session_id: str, turn_id: str, result: dict[str, Any]) -> dict[str, Any]:
        """Seal what a turn has ended with, a JSON object."""
        if not self._seals:
            return result
        plain = json.dumps(result, ensure_ascii=False).encode()
        return {
            "sealed": self._keys.seal(plain, session_id, "result", turn_id),
            "session_id": session_id,
            "turn_id": turn_id,
        }

    def open_result(self, turn_id: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open what a turn has ended with; what is not sealed stays as it is. Raises `EncryptionKeyError`."""
        if "sealed" not in result:
            return result
        plain = self._keys.open(str(result["sealed"]), str(result["session_id"]), "result", turn_id)
        opened: dict[str, Any] = json.loads(plain)
        return opened
