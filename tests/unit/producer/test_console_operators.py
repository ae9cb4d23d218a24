"""Operators of the console: how they are written down, and whose password is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from inturn.errors import ConfigurationError
from producer.console.operators import Operators, hash_password
from tests.nodes import ROOT

KIM, LEE = "a password of kim", "another password"
HASHED = hash_password(LEE)


def operators(text: str) -> Operators:
    return Operators(SecretStr(text))


@pytest.mark.parametrize("of_lee", [LEE, HASHED], ids=["plain", "hashed"])
@pytest.mark.parametrize("between", [",", ", ", "\n", "\n# the night shift\n"], ids=ascii)
def test_a_password_is_its_operators_alone(of_lee: str, between: str, tmp_path: Path) -> None:
    text = f"kim:{KIM}{between}lee:{of_lee}"
    (tmp_path / "operators").write_text(text)

    for known in (operators(text), operators(str(tmp_path / "operators"))):
        right = {(name, password) for name in ("kim", "lee", "max") for password in (KIM, LEE, HASHED, "")}
        assert {pair for pair in right if known.check(*pair)} == {("kim", KIM), ("lee", LEE)}
        assert ("kim" in known, "max" in known) == (True, False)


def test_without_the_setting_there_is_nobody() -> None:
    assert not Operators(None)


@pytest.mark.parametrize("password", ["", " ", "\0", "\ud800", "é" * 500, f"{KIM} "], ids=ascii)
def test_any_text_can_be_tried(password: str) -> None:
    assert not operators(f"kim:{KIM}").check("kim", password)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kim",
        "/no/such/file",
        "kim:",
        "kim:short",
        f"kim:{KIM},:{LEE}",
        f"k m:{KIM}",
        f"kim:{KIM},kim:{LEE}",
        f"kim:{KIM}:more",
        f"kim:{KIM}, more",
        "kim:$argon2id$v=19$nonsense",
        f"kim:{HASHED[:-30]}",
    ],
    ids=range(12),
)
def test_what_cannot_be_right_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="INTURN_CONSOLE_USERS") as refused:
        operators(text)

    assert not any(secret in str(refused.value) for secret in (KIM, LEE, "short", "nonsense"))


def test_a_hash_is_made_on_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "producer.console.operators"],
        cwd=ROOT,
        input=f"{KIM}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert operators(f"kim:{done.stdout.strip()}").check("kim", KIM)
    assert KIM not in done.stdout
