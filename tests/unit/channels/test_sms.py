"""SmsChannel: which requests are Twilio's, and the messages among them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn.channels import Request, load_channels
from inturn.channels.sms import SmsChannel, from_settings
from inturn.errors import ConfigurationError, ForgedRequestError, InvalidInputError, MissingDriverError
from inturn.settings import Settings, load_settings
from tests.twilio_webhooks import (
    CHANNEL,
    FORM,
    OURS,
    SESSION,
    SID,
    SIGNER,
    TOKEN,
    URL,
    USERS,
    answered,
    checked,
    receive,
    signed,
    signed_json,
    status,
    text,
)


class TestSignature:
    def test_what_twilio_has_signed_is_taken(self) -> None:
        CHANNEL.verify(signed(text().items()))

    def test_empty_and_repeated_fields_are_signed_as_well(self) -> None:
        CHANNEL.verify(signed([("A", "2"), ("A", "1"), ("A", "1"), ("B", ""), ("Body", " a+b&c=é😀 ")]))

    def test_a_content_type_may_have_parameters(self) -> None:
        CHANNEL.verify(
            signed(text().items(), **{"content-type": "Application/X-WWW-Form-urlencoded; charset=UTF-8"})
        )

    def test_a_json_body_is_signed_by_its_hash_in_the_url(self) -> None:
        CHANNEL.verify(signed_json(json.dumps(text("é😀"))))

    @pytest.mark.parametrize(
        "url", [f"{URL}?tenant=a%20b&empty=", "http://chat.example.com:8080/channels/sms"]
    )
    def test_the_url_is_signed_as_it_is(self, url: str) -> None:
        CHANNEL.verify(signed(text().items(), url=url))

    @pytest.mark.parametrize(
        ("called", "seen"),
        [
            ("https://chat.example.com:443/channels/sms", URL),
            (URL, "https://chat.example.com:443/channels/sms"),
            (URL, "https://chat.example.com:8000/channels/sms"),  # a proxy's own port
        ],
    )
    def test_a_port_may_be_signed_or_not(self, called: str, seen: str) -> None:
        request = signed(text().items(), url=called)

        CHANNEL.verify(Request("POST", seen, request.headers, request.body))

    def test_a_port_of_its_own_that_twilio_calls_must_be_known(self) -> None:
        request = signed(text().items(), url="https://chat.example.com:8443/channels/sms")

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, request.headers, request.body))

    @pytest.mark.parametrize(
        "seen",
        [
            "http://chat.example.com/channels/sms",  # behind a proxy that ends TLS
            "https://10.0.0.7/channels/sms",
            "https://chat.example.com/channels/sms/",
            "https://chat.example.com/channels/sms?tenant=other",
        ],
    )
    def test_another_url_than_twilio_calls_is_refused_and_the_mend_is_named(self, seen: str) -> None:
        request = signed(text().items())

        with pytest.raises(ForgedRequestError, match="INTURN_PUBLIC_URL is not the address"):
            CHANNEL.verify(Request("POST", seen, request.headers, request.body))

    @pytest.mark.parametrize(
        "pairs",
        [
            {**text(), "Body": "another"},
            {**text(), "From": "+15559990000"},
            {name: value for name, value in text().items() if name != "ToState"},
            {**text(), "Extra": ""},
        ],
    )
    def test_fields_that_were_tampered_with_are_refused(self, pairs: dict[str, str]) -> None:
        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, signed(text().items()).headers, urlencode(pairs).encode()))

    def test_a_json_body_that_was_tampered_with_is_refused(self) -> None:
        request = signed_json(json.dumps(text()))

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", request.url, request.headers, request.body + b" "))

    def test_a_json_body_without_its_hash_in_the_url_is_refused(self) -> None:
        headers = {
            "content-type": "application/json",
            "x-twilio-signature": SIGNER.compute_signature(URL, {}),
        }

        with pytest.raises(ForgedRequestError, match="bodySHA256"):
            CHANNEL.verify(Request("POST", URL, headers, b"{}"))

    def test_another_accounts_token_is_refused(self) -> None:
        with pytest.raises(ForgedRequestError, match="TWILIO_AUTH_TOKEN"):
            CHANNEL.verify(signed(text().items(), token="another"))

    @pytest.mark.parametrize("signature", [None, "", "x", "é\u0000😀", "A" * 28, "A" * 100_000])
    def test_without_a_signature_of_twilios_it_is_refused(self, signature: str | None) -> None:
        headers = {"content-type": FORM} | ({} if signature is None else {"x-twilio-signature": signature})

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, headers, urlencode(text()).encode()))

    @pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/xml"])
    def test_another_content_type_is_refused(self, kind: str) -> None:
        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(signed(text().items(), **{"content-type": kind}))

    @pytest.mark.parametrize(
        "url",
        ["", "nonsense", "https://host:port/", "https://host:99999/", "https://[::1/", "https://h/\ud800"],
    )
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        request = signed(text().items())

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", url, request.headers, request.body))

    @pytest.mark.parametrize(
        "body", [b"a" * 10_000_000, b"a=&" * 3_000_000, b"\xff\xfe", b"Body=%ff", b"\x00", b""]
    )
    def test_a_body_that_twilio_would_not_send_is_refused(self, body: bytes) -> None:
        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, signed(text().items()).headers, body))

    def test_a_form_with_more_fields_than_twilio_sends_is_refused(self) -> None:
        CHANNEL.verify(signed([("a", str(number)) for number in range(1000)]))

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(signed([("a", str(number)) for number in range(1001)]))

    def test_a_refusal_says_nothing_of_the_request(self) -> None:
        request = signed(text("secret").items(), url="https://user:pass@chat.example.com/")
        for body in (request.body, b"secret=%ff"):
            with pytest.raises(ForgedRequestError) as caught:
                CHANNEL.verify(Request("POST", "https://user:pass@x/", request.headers, body))
            assert not any(word in str(caught.value) for word in ("secret", "pass", "SM0f", "+1555"))


class TestMessages:
    def test_a_text_is_a_message_of_its_sender_to_our_number(self) -> None:
        received = receive(text("When do you open?"))

        (message,) = received.messages
        assert (message.session_id, message.turn_id, message.user_id) == (SESSION, SID, f"sms:{USERS}")
        assert message.message == "When do you open?"
        assert message.address == {"to": USERS, "from": OURS}
        assert (list(message.images), message.metadata) == ([], {})
        assert list(received.changes) == []
        assert answered(received) == []

    def test_the_same_delivered_again_is_the_same_turn(self) -> None:
        assert receive(text()) == receive(text())

    def test_a_user_has_a_conversation_with_each_of_our_numbers(self) -> None:
        sessions = {receive(text(To=number)).messages[0].session_id for number in ("+1500", "+1501", "33444")}

        assert sessions == {f"sms:{number}:{USERS}" for number in ("+1500", "+1501", "33444")}

    def test_the_reply_goes_by_the_messaging_service_and_from_the_same_number(self) -> None:
        (message,) = receive(text(MessagingServiceSid="MG1")).messages

        assert message.address == {"to": USERS, "from": OURS, "service": "MG1"}
        assert message.session_id == SESSION

    def test_a_json_body_is_read_as_well(self) -> None:
        request = signed_json(json.dumps(text("é😀")))
        CHANNEL.verify(request)

        assert checked(CHANNEL.receive(request)).messages == receive(text("é😀")).messages

    def test_white_space_and_line_ends_are_kept(self) -> None:
        assert receive(text(" a\r\n+ b ")).messages[0].message == " a\r\n+ b "

    def test_a_nul_is_not_worth_losing_a_message_for(self) -> None:
        assert receive(text("he\x00llo", MessagingServiceSid="MG\x001")).messages[0].message == "hello"

    @pytest.mark.parametrize("body", ["", "  ", "\x00"])
    def test_a_text_without_anything_comes_to_nothing(self, body: str) -> None:
        received = receive(text(body))

        assert (list(received.messages), list(received.changes), answered(received)) == ([], [], [])

    @pytest.mark.parametrize("name", ["MessageSid", "From", "To"])
    @pytest.mark.parametrize("value", [None, "", " ", "a\nb", "a" * 300])
    def test_what_twilio_always_sends_must_be_there(self, name: str, value: str | None) -> None:
        fields = text() | ({} if value is None else {name: value})
        if value is None:
            del fields[name]

        with pytest.raises(InvalidInputError):
            receive(fields)


class TestMedia:
    PICTURE = "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages/MM1/Media/ME1"
    VIDEO = "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages/MM1/Media/ME2"
    FIELDS: ClassVar = {
        "NumMedia": "2",
        "MediaUrl0": PICTURE,
        "MediaContentType0": "image/jpeg",
        "MediaUrl1": VIDEO,
        "MediaContentType1": "video/mp4",
    }
    PUBLIC = SmsChannel("AC1", TOKEN, public_media=True)

    def test_pictures_that_anybody_may_fetch_are_shown_to_the_agent(self) -> None:
        (message,) = receive(text("look", **self.FIELDS), self.PUBLIC).messages

        assert message.message == "look"
        assert list(message.images) == [self.PICTURE]
        assert message.metadata == {"media": [{"url": self.VIDEO, "content_type": "video/mp4"}]}

    def test_pictures_that_need_a_password_are_told_of(self) -> None:
        (message,) = receive(text("look", **self.FIELDS)).messages

        assert list(message.images) == []
        assert [each["url"] for each in message.metadata["media"]] == [self.PICTURE, self.VIDEO]

    def test_a_picture_that_is_not_served_securely_is_told_of(self) -> None:
        fields = {"MediaUrl0": "http://127.0.0.1/ME1", "MediaContentType0": "image/png"}
        (message,) = receive(text("look", **fields), self.PUBLIC).messages

        assert list(message.images) == []
        assert [each["url"] for each in message.metadata["media"]] == ["http://127.0.0.1/ME1"]

    @pytest.mark.parametrize("kind", ["image/jpeg", "IMAGE/PNG"])
    def test_a_picture_without_a_word_is_a_message(self, kind: str) -> None:
        fields = {"MediaUrl0": self.PICTURE, "MediaContentType0": kind}

        assert receive(text("", **fields)).messages[0].message == "[image]"
        assert receive(text("", **fields), self.PUBLIC).messages[0].message == "[image]"

    @pytest.mark.parametrize("kind", [{"MediaContentType0": "text/x-vcard"}, {}])
    def test_another_attachment_without_a_word_is_a_message(self, kind: dict[str, str]) -> None:
        assert receive(text(" ", MediaUrl0=self.VIDEO, **kind)).messages[0].message == "[attachment]"

    def test_no_more_than_twilio_takes_are_looked_for(self) -> None:
        fields = {f"MediaUrl{number}": f"https://x/{number}" for number in range(50)}

        assert len(receive(text("", **fields, NumMedia="9999999999")).messages[0].metadata["media"]) == 10


names = st.sampled_from(
    [*text(), *status(), "OptOutType", "MessagingServiceSid", "MediaUrl0", "MediaContentType0"]
)
values = st.one_of(
    st.sampled_from(
        ["STOP", "yes", "delivered", "failed", "image/png", "https://x/", USERS, SID, "", "\x00", "é😀"]
    ),
    st.text(st.characters(exclude_categories=["Cs"])),
)
pairs = st.lists(st.tuples(st.one_of(names, values), values), max_size=20)


class TestAnything:
    @given(st.binary(max_size=300), st.sampled_from([FORM, "application/json", "text/plain", ""]), st.text())
    def test_nothing_unsigned_comes_in(self, body: bytes, kind: str, signature: str) -> None:
        headers = {"content-type": kind, "x-twilio-signature": signature}

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, headers, body))

    @given(pairs)
    def test_any_form_of_twilios_comes_to_something_or_is_refused(
        self, fields: list[tuple[str, str]]
    ) -> None:
        request = signed(fields)
        CHANNEL.verify(request)
        with contextlib.suppress(InvalidInputError):
            checked(CHANNEL.receive(request))

    @given(st.dictionaries(names, values), st.dictionaries(names, values))
    def test_any_form_with_what_twilio_always_sends_is_taken(
        self, fields: dict[str, str], more: dict[str, str]
    ) -> None:
        fixed = {"MessageSid": SID, "From": USERS, "To": OURS}

        receive({**text(), **fields, **fixed})
        receive({**status(), **more, **fixed})

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.text()),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(names, st.text()), inner)),
        )
    )
    def test_any_json_comes_to_something_or_is_refused(self, value: Any) -> None:
        request = signed_json(json.dumps(value))
        CHANNEL.verify(request)
        with contextlib.suppress(InvalidInputError):
            checked(CHANNEL.receive(request))

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "[]",
            "null",
            "{",
            "[" * 100_000,
            "1" * 10_000,
            json.dumps({**text(), "MessageSid": 7}),
            json.dumps({**text(), "Body": {"$ne": None}}),
            json.dumps(text("\ud800")),
        ],
    )
    def test_json_that_twilio_would_not_send_is_refused(self, body: str) -> None:
        request = signed_json(body)
        CHANNEL.verify(request)

        with pytest.raises(InvalidInputError):
            CHANNEL.receive(request)

    @given(st.binary(max_size=300), st.sampled_from([FORM, "application/json", "text/plain", ""]))
    def test_what_was_not_verified_is_refused_in_the_same_way(self, body: bytes, kind: str) -> None:
        with contextlib.suppress(InvalidInputError):
            CHANNEL.receive(Request("POST", URL, {"content-type": kind}, body))


class TestSettings:
    def settings(self, sid: str | None = None, token: str | None = None, **others: str) -> Settings:
        return load_settings(twilio_account_sid=sid, twilio_auth_token=token, **others)

    def test_without_an_account_there_is_no_channel(self) -> None:
        assert from_settings(self.settings()) is None
        assert from_settings(self.settings("", " ")) is None

    def test_an_account_and_its_token_make_one(self) -> None:
        made = load_channels(self.settings("AC1", TOKEN))["sms"]

        made.verify(signed(text().items()))

    @pytest.mark.parametrize(
        ("sid", "token", "missing"),
        [
            ("AC1", None, "TWILIO_AUTH_TOKEN"),
            (None, TOKEN, "TWILIO_ACCOUNT_SID"),
            ("AC1", "", "TWILIO_AUTH_TOKEN"),
        ],
    )
    def test_one_without_the_other_is_refused(self, sid: str | None, token: str | None, missing: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{missing} is not set"):
            from_settings(self.settings(sid, token))

    def test_an_address_of_twilio_that_is_none_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="INTURN_TWILIO_BASE_URL"):
            from_settings(self.settings("AC1", TOKEN, twilio_base_url="api.twilio.com"))

    def test_without_twilios_package_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [*filter(lambda name: name.partition(".")[0] == "twilio", sys.modules), "twilio"]:
            monkeypatch.setitem(sys.modules, name, None)

        with pytest.raises(MissingDriverError, match=r"pip install 'inturn\[sms\]'"):
            from_settings(self.settings("AC1", TOKEN))

    def test_importing_the_channel_loads_neither_twilio_nor_requests(self) -> None:
        code = "import sys, inturn.channels.sms; print({'twilio', 'requests'} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == "set()"
