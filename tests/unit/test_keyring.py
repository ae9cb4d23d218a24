"""Key rings are read from settings, files and functions; what is wrong is told, and no key is."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from inturn.errors import ConfigurationError, EncryptionKeyError
from inturn.keyring import KeyRing, create_key

KEY = base64.b64encode(bytes(range(32))).decode()
SECRET = "c2VjcmV0"


def read(text: str) -> KeyRing:
    return KeyRing.read(SecretStr(text))


def from_kms() -> dict[str, bytes]:
    return {"2026-11": bytes(range(32)), "2026-10": bytes(32)}


def raises() -> dict[str, bytes]:
    raise RuntimeError(SECRET)


def gives_a_text() -> str:
    return SECRET


NO_FUNCTION = SECRET


def test_the_first_key_seals_and_all_open(tmp_path: Path) -> None:
    older = create_key("a.1")
    file = tmp_path / "keys"
    file.write_text(f"# newest first\nb-2:{KEY}\n\n  {older}\n")
    sealed = read(older).seal(b"text", "s", "session")
    for ring in (read(f"b-2:{KEY}, {older}"), read(str(file))):
        assert ring.ids == ["b-2", "a.1"]
        assert ring.open(sealed, "s", "session") == b"text"
        assert ring.seal(b"text", "s", "session").startswith("v1:b-2:")


def test_a_function_may_give_the_keys() -> None:
    assert read(f"{__name__}:from_kms").ids == ["2026-11", "2026-10"]


def test_no_setting_is_a_ring_without_keys() -> None:
    assert not KeyRing.read(None)
    assert not read("")
    assert read(f"k:{KEY}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (KEY, "entry 1 has no ID"),
        (f":{KEY}", "entry 1 has no ID"),
        (f"k:{SECRET}%=", "'k' is not base64"),
        (f"k:{SECRET}{SECRET}w===", "'k' is not base64"),
        (f"k:{SECRET}YQ==", "'k' has not 32 bytes"),
        (f"k:{KEY},k:{KEY}", "two keys have the ID 'k'"),
        (f"k k:{KEY}", "entry 1 has no ID"),
        (f"{'k' * 33}:{KEY}", "entry 1 has no ID"),
        ("k:" + SECRET, "neither keys"),
        ("/no/such/" + SECRET, "neither keys"),
        (SECRET, "neither keys"),
        (f"{__name__}:raises", "raised RuntimeError"),
        (f"{__name__}:gives_a_text", "must give a dict"),
        (f"{__name__}:NO_FUNCTION", "is no function"),
        (f"{__name__}:nothing", "is no function"),
    ],
    ids=range(15),
)
def test_what_is_wrong_is_told_and_no_key_is_shown(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refusal:
        read(text)
    assert "INTURN_ENCRYPTION_KEYS" in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert KEY not in str(refusal.value)


def test_no_key_is_in_a_representation() -> None:
    assert repr(read(f"k:{KEY}")) == "KeyRing(k)"


def test_a_new_key_is_one_of_its_own() -> None:
    assert create_key("a") != create_key("a")
    assert read(create_key("2026-11")).ids == ["2026-11"]
    with pytest.raises(ConfigurationError, match="ID of key 1"):
        create_key("no spaces")


@pytest.mark.parametrize("sealed", ["v1:k:", "v1:k:AAAA", "v1:k:!", "v2:k:AAAA", "", "v1:other:AAAA"])
def test_what_no_key_opens_is_told(sealed: str) -> None:
    with pytest.raises(EncryptionKeyError, match="session 's' was sealed"):
        read(f"k:{KEY}").open(sealed, "s", "session")


def test_a_sealed_text_stays_what_it_was_in_every_release() -> None:
    """Made once; if this fails, no store that was written until now can be read."""
    sealed = FIXED
    assert read(f"k:{KEY}").open(sealed, "session-1", "message", "m1", "user") == b"as it was"


FIXED = "v1:k:ntyuHRwUwzXCQs/EGBRrSDqGV1t1n0EYz2fDdYM5xOWyW8KhtQ=="
