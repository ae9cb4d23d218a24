"""API keys: how they are written down, and which key is whose."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from inturn.errors import ConfigurationError
from producer.api_keys import ApiKeys

ONE, TWO = "0123456789abcdef-one", "0123456789abcdef-two"


def keys(text: str) -> ApiKeys:
    return ApiKeys(SecretStr(text))


def test_a_key_is_known_by_its_name() -> None:
    known = keys(f"one:{ONE}, two:{TWO}")

    assert (known.name_of(ONE), known.name_of(TWO)) == ("one", "two")


@pytest.mark.parametrize(
    "key", ["", "one", f"one:{ONE}", f"two:{ONE}", ONE[:-1], f"{ONE} ", ONE.upper(), "\ud800"]
)
def test_what_is_not_just_a_key_is_not_known(key: str) -> None:
    assert keys(f"one:{ONE},two:{TWO}").name_of(key) is None


def test_a_key_may_have_colons_in_it() -> None:
    assert keys("one:0123:4567:89ab:cdef").name_of("0123:4567:89ab:cdef") == "one"


def test_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of the web shop\none:{ONE}\n\n two : {TWO}\n")
    known = keys(str(tmp_path / "keys"))

    assert (known.name_of(ONE), known.name_of(TWO)) == ("one", "two")


@pytest.mark.parametrize("setting", [None, SecretStr(""), SecretStr("  ")])
def test_without_keys_none_is_known(setting: SecretStr | None) -> None:
    known = ApiKeys(setting)

    assert not known
    assert known.name_of("") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one:too-short", "entry 1 has less than 16"),
        (f"one:{ONE},one:{TWO}", "entry 2 has the name of one before it"),
        (f"a name:{ONE}", "entry 1 is not name:key"),
        (f"one:{ONE},{TWO}", "entry 2 has less than 16"),
        (f":{ONE}", "entry 1 is not name:key"),
        (ONE, "neither a list"),
        ("/no/such/file", "neither a list"),
        ("\x00", "neither a list"),
    ],
)
def test_what_cannot_be_right_is_refused_without_showing_it(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        keys(text)

    assert not any(secret in str(refused.value) for secret in (ONE, TWO, "too-short"))


def test_no_key_is_kept_in_memory() -> None:
    assert ONE not in repr(vars(keys(f"one:{ONE}")))
