"""What the base gives to a channel: a request's JSON, and how a reply is split unless it says otherwise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.channels import Request
from inturn.errors import InvalidInputError
from tests.channels import RecordingChannel


def request(body: bytes) -> Request:
    return Request("POST", "https://example.org/channels/x", {}, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b'"secret words"', "must be a JSON object, not str"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused_without_being_quoted(body: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refused:
        request(body).json()

    assert "secret" not in str(refused.value)


def test_a_json_object_is_read() -> None:
    assert request('{"text": "ä"}'.encode()).json() == {"text": "ä"}


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        assert isinstance(request(body).json(), dict)


def test_a_reply_is_split_by_the_limit() -> None:
    channel = RecordingChannel("http://127.0.0.1:1")

    assert channel.parts("word " * 20) == [
        ("word " * 8).strip(),
        ("word " * 8).strip(),
        ("word " * 4).strip(),
    ]
    assert channel.parts(" ") == []
