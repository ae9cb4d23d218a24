"""Secrets: none is in a representation, a message or a log, and none is compared so that time tells of it."""

from __future__ import annotations

import ast
import pickle
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from inturn.channels import load_channels
from inturn.client import Client
from inturn.errors import InturnError
from inturn.persistence.opening import open_store
from inturn.settings import Settings, load_settings
from producer.auth import Gate
from producer.web import create_app
from tests.nodes import ROOT

MARKER = "zebra-5f3a-secret"
NO_SECRETS = {
    "jwt_key_file": "the path of a file with public keys",
    "key_prefix": "what names in Redis begin with",
    "model_tokens": "a number of tokens of a model",
    "tenant_model_tokens": "the same",
    "openai_base_url": "an address",
    "public_url": "an address that the world knows",
    "secrets_dir": "the path of a directory",
    "slack_base_url": "an address",
    "twilio_base_url": "an address",
}
NAMED = [
    name
    for name in Settings.model_fields
    if re.search(r"key|secret|token|password|_url$|^result_backend$", name)
]
SECRETS = [name for name in NAMED if name not in NO_SECRETS]
WRONG = {
    # Values that hold the marker, and that something is wrong with.
    "redis_url": f"redis://u:{MARKER}@127.0.0.1:1/{MARKER}",
    "broker_url": f"nonsense://u:{MARKER}@127.0.0.1:1/0",
    "result_backend": f"nonsense://u:{MARKER}@127.0.0.1:1/0",
    "database_url": f"postgresql://u:{MARKER}@127.0.0.1:1/x?nonsense={MARKER}",
    "inbox_url": f"postgresql://u:{MARKER}@127.0.0.1:1/x?nonsense={MARKER}",
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_may_hold_a_secret_is_typed_as_one(name: str) -> None:
    annotation = Settings.model_fields[name].annotation

    assert SecretStr in (annotation, *get_args(annotation)), name


def test_each_exception_is_a_setting() -> None:
    assert set(NO_SECRETS) <= set(NAMED)


@pytest.fixture
def settings() -> Settings:
    return load_settings(**dict.fromkeys(SECRETS, MARKER))


def test_no_secret_is_in_the_settings_as_they_are_shown(settings: Settings) -> None:
    shown = [
        repr(settings),
        str(settings),
        f"{settings!r:>10}",
        settings.model_dump_json(),
        str(settings.model_dump()),
    ]

    assert [text for text in shown if MARKER in text] == []


def attempts(name: str) -> Iterator[Any]:
    """What a process does with its settings when it starts."""
    given: dict[str, Any] = {name: WRONG.get(name, MARKER)}
    if name == "inbox_url":
        given["inbox"] = "database"
    yield lambda: load_settings(**given, lease_seconds=-1)  # the error names the settings that are wrong
    settings = load_settings(**given)
    yield lambda: Gate(settings)
    yield lambda: load_channels(settings)
    yield lambda: open_store(settings).initialize()
    yield lambda: Client(settings).ping()
    yield lambda: Client(settings).respond("s", "hello")
    yield lambda: create_app(settings)


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_in_a_representation_or_an_error(
    name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for attempt in attempts(name):
        try:
            said.append(repr(attempt()))
        except InturnError as error:
            said += [str(error), repr(error), repr(pickle.loads(pickle.dumps(error)))]
            said.append("".join(traceback.format_exception(error)))
        except Exception as error:
            pytest.fail(f"{type(error).__name__} instead of an error of ours")
    captured = capsys.readouterr()

    assert [text for text in [*said, caplog.text, captured.out, captured.err] if MARKER in text] == []


def comparisons() -> Iterator[tuple[Path, ast.Compare]]:
    for tree in ("src", "worker", "producer"):
        for path in (ROOT / tree).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In):
                    yield path, node


def test_no_secret_is_compared_with_an_operator() -> None:
    """`hmac.compare_digest` takes as long for a value that is nearly right as for any other."""
    secret = re.compile(r"(?<![a-z])(secret|password|signature|credential|api_?key|bearer|hmac)", re.I)
    suspicious = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in comparisons()
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Name | ast.Attribute | ast.Call) and secret.search(ast.unparse(side))
    ]

    assert suspicious == []
