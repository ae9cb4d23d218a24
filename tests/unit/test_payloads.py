"""What may come with a message, which words refuse what may not, and what older readers make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inturn.contract import PAYLOAD_VERSION, RespondPayload, decode_payload
from inturn.errors import InvalidInputError
from inturn.settings import Settings, load_settings
from inturn.turns.payloads import MOST_IMAGES, encode_payload, respond_payload, save_session_payload

SETTINGS = Settings(max_payload_bytes=2048)
PNG = "data:image/png;base64,iVBORw0KGgo="
SECRET = "cucumber-4711"


def payload(**given: Any) -> RespondPayload:
    return respond_payload(SETTINGS, "s", "hello", **given)


def test_images_and_stream_travel_in_the_payload() -> None:
    images = ["https://example.org/table.png", PNG]

    read = decode_payload(encode_payload(SETTINGS, payload(images=images, stream=True)))

    assert isinstance(read, RespondPayload)
    assert (read.images, read.stream) == (images, True)


def test_a_payload_has_no_images_and_no_stream_unless_they_are_wanted() -> None:
    read = decode_payload('{"kind": "respond", "session_id": "s", "message": "hello"}')

    assert isinstance(read, RespondPayload)
    assert (read.images, read.stream) == ([], False)


def test_a_reader_of_the_same_format_ignores_fields_that_it_does_not_know() -> None:
    text = json.loads(encode_payload(SETTINGS, payload(stream=True)))

    assert text["v"] == PAYLOAD_VERSION == 1
    decode_payload(json.dumps({**text, "something_newer": True}))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (PNG, "a list of URLs"),
        ([f"ftp://example.org/{SECRET}.png"], "https: URL"),
        ([f"http://example.org/{SECRET}.png"], "an image must be an https: URL"),
        ([f"data:text/html,{SECRET}"], "https: URL"),
        ([f"javascript:{SECRET}"], "https: URL"),
        ([{"$ne": SECRET}], "https: URL"),
        ([f"https://{SECRET}\x00"], "NUL"),
        ([f"https://{SECRET}\ud800"], "surrogate"),
        ([PNG] * (MOST_IMAGES + 1), f"{MOST_IMAGES} images, this one has {MOST_IMAGES + 1}"),
        ([PNG, f"{PNG}{'A' * 2048}"], "INTURN_MAX_PAYLOAD_BYTES.*image 2 alone"),
    ],
)
def test_images_that_cannot_be_taken_are_refused_and_not_quoted(images: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refused:
        payload(images=images)

    assert SECRET not in str(refused.value)


def test_images_count_towards_the_size_of_the_payload() -> None:
    image = PNG + "A" * 900

    encode_payload(SETTINGS, payload(images=[image]))
    with pytest.raises(InvalidInputError, match="INTURN_MAX_PAYLOAD_BYTES"):
        encode_payload(SETTINGS, payload(images=[image] * 3))


@pytest.mark.parametrize("stream", ["yes", 1, None])
def test_a_flag_that_is_none_is_refused(stream: Any) -> None:
    with pytest.raises(InvalidInputError, match="stream must be true or false"):
        payload(stream=stream)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("elsewhere", "address must be a mapping"),
        ({"to": SECRET + "\x00"}, "address contains a NUL"),
        ({"to": SECRET + "\ud800"}, "address contains a lone surrogate"),
        ({"to": float("nan")}, "address is not JSON"),
    ],
)
def test_an_address_that_cannot_be_kept_is_refused_and_not_quoted(address: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as refused:
        payload(channel="pigeon", address=address)

    assert SECRET not in str(refused.value)


def test_an_address_needs_a_channel() -> None:
    assert payload(address={}).address == {}
    with pytest.raises(InvalidInputError, match="give the channel's name"):
        payload(address={"to": "me"})


class TestUnicodeForms:
    @pytest.mark.parametrize(
        ("form", "taken"),
        [("none", "cafe\u0301 \uff21\ufb01"), ("nfc", "caf\u00e9 \uff21\ufb01"), ("nfkc", "caf\u00e9 Afi")],
        ids=["none", "nfc", "nfkc"],
    )
    def test_messages_are_brought_to_the_form_that_is_set(self, form: str, taken: str) -> None:
        said = "cafe\u0301 \uff21\ufb01"
        settings = load_settings(normalize=form)

        assert respond_payload(settings, "s", said).message == taken
        saved = save_session_payload(settings, "s", messages=[{"role": "user", "content": said}])
        assert saved.messages is not None
        assert saved.messages[0].content == taken

    def test_the_limit_is_that_of_what_is_kept(self) -> None:
        settings = load_settings(normalize="nfkc", max_message_chars=100)

        with pytest.raises(InvalidInputError, match="INTURN_MAX_MESSAGE_CHARS"):
            respond_payload(settings, "s", "\ufdfa" * 90)

    @pytest.mark.parametrize("form", ["none", "nfc", "nfkc"])
    def test_what_no_store_keeps_is_refused_in_any_form(self, form: str) -> None:
        for text in ("a\x00b", "a\ud800b"):
            with pytest.raises(InvalidInputError):
                respond_payload(load_settings(normalize=form), "s", text)

    def test_ids_stay_as_they_are(self) -> None:
        payload = respond_payload(load_settings(normalize="nfkc"), "cafe\u0301", "hi", user_id="\ufb01")

        assert (payload.session_id, payload.user_id) == ("cafe\u0301", "\ufb01")
