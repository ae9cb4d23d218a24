"""Envelopes: payloads and results are sealed where the settings say so, and opened where there are keys."""

from __future__ import annotations

import pytest

from inturn.contract import UnknownPayloadError, decode_payload
from inturn.envelopes import Envelopes
from inturn.errors import ConfigurationError, EncryptionKeyError
from inturn.keyring import KeyRing
from inturn.settings import load_settings

RING = KeyRing({"k": b"1" * 32})
SEALING, OPENING, LACKING = (
    Envelopes(RING, seals=True),
    Envelopes(RING, seals=False),
    Envelopes(KeyRing(), seals=False),
)
PAYLOAD = '{"v":1,"kind":"respond","session_id":"s","message":"hello"}'


def test_a_payload_is_sealed_once_and_opened_by_whoever_has_the_key() -> None:
    sealed = SEALING.seal("s", PAYLOAD)
    assert "hello" not in sealed
    assert SEALING.seal("s", sealed) == sealed
    assert SEALING.open("s", sealed) == OPENING.open("s", sealed) == PAYLOAD


def test_what_is_not_sealed_passes_as_it_is() -> None:
    assert OPENING.seal("s", PAYLOAD) == OPENING.open("s", PAYLOAD) == LACKING.open("s", PAYLOAD) == PAYLOAD
    assert SEALING.seal("s", "") == ""
    assert OPENING.open_result("t", {"kind": "respond"}) == {"kind": "respond"}


def test_what_cannot_be_opened_is_a_payload_that_is_left_to_others() -> None:
    sealed = SEALING.seal("s", PAYLOAD)
    for left in (LACKING.open("s", sealed), SEALING.open("of another session", sealed)):
        assert left == sealed
        with pytest.raises(UnknownPayloadError, match="INTURN_ENCRYPTION_KEYS") as refusal:
            decode_payload(left)
        assert refusal.value.retryable


def test_a_result_opens_under_its_own_turn_only() -> None:
    sealed = SEALING.seal_result("s", "t", {"message": "hello"})
    assert "hello" not in str(sealed)
    assert OPENING.open_result("t", sealed) == {"message": "hello"}
    for envelopes, turn_id in ((OPENING, "another"), (LACKING, "t")):
        with pytest.raises(EncryptionKeyError):
            envelopes.open_result(turn_id, sealed)


def test_without_keys_there_is_nothing_to_seal_with() -> None:
    with pytest.raises(ConfigurationError, match="INTURN_ENCRYPTION_KEYS must be set"):
        load_settings(encrypt_redis=True)
