"""SlackChannel: which requests are Slack's, which of them are messages, and what they say."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inturn.channels import Incoming, Received, Request
from inturn.channels.slack import SlackChannel, from_settings
from inturn.channels.slack_text import escape, escaped_length, plain_text
from inturn.errors import ConfigurationError, ForgedRequestError, InvalidInputError, MissingDriverError
from inturn.ids import create_turn_id
from inturn.settings import load_settings
from inturn.turns.payloads import respond_payload
from tests.nodes import ROOT
from tests.servers_slack import BOT_TOKEN, SIGNING_SECRET, signed_headers

URL = "https://chat.example.com/channels/slack"
FORM = "application/x-www-form-urlencoded"
BOT = "U0LAN0Z89"
CHANNEL = SlackChannel(BOT_TOKEN, SIGNING_SECRET)


def request(body: bytes, **how: Any) -> Request:
    return Request("POST", URL, signed_headers(body, **how), body)


def receive(envelope: Any, **headers: str) -> Received:
    """What comes of a request with this JSON, signed by Slack."""
    body = json.dumps(envelope).encode()
    received = Request("POST", URL, {**signed_headers(body), **headers}, body)
    CHANNEL.verify(received)
    return CHANNEL.receive(received)


def receive_form(**fields: str) -> Received:
    body = urlencode(fields).encode()
    received = request(body, content_type=FORM)
    CHANNEL.verify(received)
    return CHANNEL.receive(received)


def event(text: str | None = "hello", **fields: Any) -> dict[str, Any]:
    """An envelope with a message in a channel; a field that is None is left out."""
    inner = {
        "type": "message",
        "channel": "C061EG9SL",
        "channel_type": "channel",
        "user": "U061F7AUR",
        "text": text,
        "ts": "1515449522.000016",
        "event_ts": "1515449522.000016",
        "client_msg_id": "4bd4a4e4-7ad4-4ad4-8ad4-1ad4dad4aad4",
        "team": "T061EG9R6",
        **fields,
    }
    return {
        "token": "XXYYZZ",
        "team_id": "T061EG9R6",
        "api_app_id": "A0MDYCDME",
        "event": {name: value for name, value in inner.items() if value is not None},
        "type": "event_callback",
        "event_id": "Ev0LAN670R",
        "event_time": 1515449522,
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": "T061EG9R6",
                "user_id": BOT,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": False,
    }


def direct(text: str | None = "hello", **fields: Any) -> dict[str, Any]:
    return event(text, **{"channel": "D024BE91L", "channel_type": "im", **fields})


def mention(text: str = f"<@{BOT}> hello", **fields: Any) -> dict[str, Any]:
    """The event app_mention, which has no type of channel."""
    return event(text, **{"type": "app_mention", "channel_type": None, **fields})


def command(**fields: str) -> dict[str, str]:
    return {
        "token": "XXYYZZ",
        "team_id": "T061EG9R6",
        "team_domain": "example",
        "channel_id": "C061EG9SL",
        "channel_name": "test",
        "user_id": "U061F7AUR",
        "user_name": "ann",
        "command": "/ask",
        "text": "when do you open?",
        "response_url": "https://hooks.slack.com/commands/1234/5678",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        "api_app_id": "A0MDYCDME",
        **fields,
    }


def only(received: Received) -> Incoming:
    assert len(received.messages) == 1
    return received.messages[0]


class TestSignature:
    def test_a_request_that_slack_signed_passes(self) -> None:
        CHANNEL.verify(request('{"text": "grüß Gott"}'.encode()))

    def test_another_secret_is_refused(self) -> None:
        with pytest.raises(ForgedRequestError, match="SLACK_SIGNING_SECRET"):
            CHANNEL.verify(request(b"{}", secret="another"))

    def test_a_changed_body_is_refused(self) -> None:
        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, signed_headers(b'{"a": 1}'), b'{"a": 2}'))

    @pytest.mark.parametrize("seconds", [-360, 360, -86_400, 86_400])
    def test_a_request_of_another_time_is_refused(self, seconds: int) -> None:
        with pytest.raises(ForgedRequestError, match="five minutes"):
            CHANNEL.verify(request(b"{}", at=time.time() + seconds))

    @pytest.mark.parametrize("seconds", [-240, 240])
    def test_clocks_may_differ_a_little(self, seconds: int) -> None:
        CHANNEL.verify(request(b"{}", at=time.time() + seconds))

    def test_the_time_is_part_of_what_is_signed(self) -> None:
        old = signed_headers(b"{}", at=time.time() - 3600)
        now = {**old, "x-slack-request-timestamp": str(int(time.time()))}

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, now, b"{}"))

    @pytest.mark.parametrize("name", ["x-slack-signature", "x-slack-request-timestamp"])
    @pytest.mark.parametrize(
        "value", [None, "", "v0=", "v0=é", "-1", "1e9", "nan", "١٢٣٤٥٦٧٨٩٠", "9" * 5000, "\ud800", "\x00"]
    )
    def test_missing_and_garbled_headers_are_refused(self, name: str, value: str | None) -> None:
        headers = signed_headers(b"{}")
        headers.pop(name)
        if value is not None:
            headers[name] = value

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, headers, b"{}"))

    def test_a_body_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, signed_headers(b"{}"), b"\xff"))

    @settings(deadline=None)
    @given(st.text(), st.text(), st.binary(max_size=50))
    def test_nothing_else_passes(self, timestamp: str, signature: str, body: bytes) -> None:
        headers = {"x-slack-request-timestamp": timestamp, "x-slack-signature": signature}

        with pytest.raises(ForgedRequestError):
            CHANNEL.verify(Request("POST", URL, headers, body))


class TestAddresses:
    def test_the_url_is_verified_with_the_challenge(self) -> None:
        received = receive({"token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV", "type": "url_verification"})

        assert received.messages == ()
        assert (received.answer.status, received.answer.body) == (200, "3eZbrw1aBm2rZgRNFdxV")
        assert received.answer.content_type == "text/plain"

    @pytest.mark.parametrize("kind", ["app_rate_limited", "something_new"])
    def test_other_kinds_of_requests_come_to_nothing(self, kind: str) -> None:
        assert receive({"type": kind}) == Received()

    def test_a_direct_message_is_in_the_conversation_of_its_channel(self) -> None:
        incoming = only(receive(direct()))

        assert incoming == Incoming(
            session_id="slack:T061EG9R6:D024BE91L",
            message="hello",
            turn_id="D024BE91L:1515449522.000016",
            address={"channel": "D024BE91L"},
            user_id="slack:T061EG9R6:U061F7AUR",
        )

    def test_a_mention_in_a_direct_message_is_a_direct_message(self) -> None:
        as_mention = mention("hello", channel="D024BE91L")

        assert only(receive(as_mention)) == only(receive(direct()))

    def test_a_direct_message_in_a_thread_is_in_the_conversation_of_the_thread(self) -> None:
        incoming = only(receive(direct(thread_ts="1515449000.000001")))

        assert incoming.session_id == "slack:T061EG9R6:D024BE91L:1515449000.000001"
        assert incoming.address == {"channel": "D024BE91L", "thread_ts": "1515449000.000001"}

    def test_a_mention_begins_a_thread(self) -> None:
        incoming = only(receive(mention()))

        assert incoming.session_id == "slack:T061EG9R6:C061EG9SL:1515449522.000016"
        assert incoming.address == {"channel": "C061EG9SL", "thread_ts": "1515449522.000016"}
        assert incoming.message == "hello"

    def test_a_mention_in_a_thread_goes_on_with_the_conversation_that_its_first_message_began(self) -> None:
        first = only(receive(mention()))
        second = only(receive(mention(ts="1515449600.000002", thread_ts="1515449522.000016")))

        assert second.session_id == first.session_id
        assert second.address == first.address
        assert second.turn_id != first.turn_id

    @pytest.mark.parametrize("thread_ts", [None, "1515449000.000001"])
    def test_a_mention_that_comes_as_two_events_is_one_turn(self, thread_ts: str | None) -> None:
        as_message = event(f"<@{BOT}> hello", thread_ts=thread_ts)
        as_mention = {**mention(thread_ts=thread_ts), "event_id": "Ev0ANOTHER1"}

        assert only(receive(as_message)) == only(receive(as_mention))

    def test_a_repeated_delivery_is_the_same_turn(self) -> None:
        again = {"x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}

        assert receive(direct(), **again) == receive(direct())
        assert len(receive(direct(), **again).messages) == 1

    def test_messages_of_a_channel_are_left_alone(self) -> None:
        assert receive(event("hello everybody")).messages == []

    @pytest.mark.parametrize("channel_type", ["channel", "group", "mpim"])
    def test_a_mention_anywhere_in_the_text_is_a_mention(self, channel_type: str) -> None:
        assert only(receive(event(f"do you know, <@{BOT}|bot>?", channel_type=channel_type)))

    def test_a_mention_of_somebody_else_is_not(self) -> None:
        assert receive(event("<@U999999> hello")).messages == []
        assert receive(event(f"<@{BOT}0> hello")).messages == []
        assert receive(event(f"&lt;@{BOT}&gt; hello")).messages == []

    def test_an_answer_in_a_thread_that_the_bot_has_begun_is_to_the_bot(self) -> None:
        answer = {"thread_ts": "1515449000.000001", "ts": "1515449522.000016"}

        incoming = only(receive(event("yes please", parent_user_id=BOT, **answer)))
        assert incoming.session_id == "slack:T061EG9R6:C061EG9SL:1515449000.000001"
        assert incoming.begins

    def test_an_answer_in_another_thread_is_to_the_bot_only_if_it_takes_part(self) -> None:
        answer = {"thread_ts": "1515449000.000001", "ts": "1515449522.000016"}

        assert not only(receive(event("yes please", **answer))).begins
        assert not only(receive(event("yes please", parent_user_id="U999999", **answer))).begins
        assert only(receive(event(f"<@{BOT}> yes please", **answer))).begins

    @pytest.mark.parametrize("subtype", ["file_share", "me_message", "thread_broadcast"])
    def test_what_users_write_otherwise_is_a_message_too(self, subtype: str) -> None:
        assert only(receive(direct(subtype=subtype))).message == "hello"

    @pytest.mark.parametrize(
        "subtype",
        [
            "bot_message",
            "message_changed",
            "message_deleted",
            "message_replied",
            "channel_join",
            "reminder_add",
        ],
    )
    def test_what_else_happens_in_a_channel_is_no_message(self, subtype: str) -> None:
        assert receive(direct(subtype=subtype)).messages == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"bot_id": "B19LU7CSY"},
            {"user": BOT},
            {"user": "USLACKBOT"},
            {"hidden": True},
            {"edited": {"user": "U061F7AUR", "ts": "1515449600.000000"}},
            {"type": "reaction_added"},
        ],
    )
    def test_bots_and_edits_are_not_answered(self, fields: dict[str, Any]) -> None:
        assert receive(direct(**fields)).messages == []
        assert receive(mention(**fields)).messages == []

    def test_a_user_for_whom_the_app_may_act_is_not_the_bot(self) -> None:
        envelope = direct()
        envelope["authorizations"][0].update(user_id="U061F7AUR", is_bot=False)

        assert only(receive(envelope)).message == "hello"

    @pytest.mark.parametrize("authorizations", [None, [], [None, "U1", []], {"user_id": BOT, "is_bot": True}])
    def test_a_bot_that_slack_does_not_name_is_still_mentioned(self, authorizations: object) -> None:
        envelope = {**mention(), "authorizations": authorizations}

        assert only(receive(envelope)).message == f"@{BOT} hello"
        assert receive({**event(f"<@{BOT}> hello"), "authorizations": authorizations}).messages == []

    def test_ids_are_those_that_the_queue_takes(self) -> None:
        longest = direct(channel="D" + "A" * 39, user="U" * 40, ts="9" * 20 + "." + "9" * 20)
        longest["event"]["thread_ts"] = longest["event"]["ts"]
        longest["team_id"] = "T" * 40
        incoming = only(receive(longest))

        assert create_turn_id(incoming.session_id, incoming.turn_id)
        assert respond_payload(
            load_settings(), incoming.session_id, incoming.message, user_id=incoming.user_id
        )

    @pytest.mark.parametrize("value", ["C1:2", "../C1", "C1 ", "C1\n", "", "Ç1", "C" * 41, None, 5, ["C1"]])
    @pytest.mark.parametrize("field", ["channel", "user", "ts", "team_id"])
    def test_an_id_that_slack_would_not_give_is_refused(self, field: str, value: Any) -> None:
        envelope = direct()
        (envelope if field == "team_id" else envelope["event"])[field] = value

        with pytest.raises(InvalidInputError, match=field):
            receive(envelope)


class TestText:
    @pytest.mark.parametrize(
        ("text", "plain"),
        [
            ("a &lt;b&gt; &amp; c", "a <b> & c"),
            ("&amp;lt;", "&lt;"),
            ("&quot; &#39; &nbsp;", "&quot; &#39; &nbsp;"),
            ("<https://example.com/a?b=1&amp;c=2>", "https://example.com/a?b=1&c=2"),
            ("<https://example.com|our shop>", "our shop (https://example.com)"),
            ("<http://example.com|example.com>", "example.com"),
            (
                "<https://evil.example?q=example.com|example.com>",
                "example.com (https://evil.example?q=example.com)",
            ),
            ("<mailto:ann@example.com|ann@example.com>", "ann@example.com"),
            ("<tel:+15550100|+15550100>", "+15550100"),
            ("<@U1> and <@W2|ann>", "@U1 and @ann"),
            ("<#C1|news> <#C2> <#C3|>", "#news #C2 #C3"),
            ("<!here> <!channel|channel> <!everyone|@everyone>", "@here @channel @everyone"),
            ("<!subteam^S1|@admins> <!subteam^S2>", "@admins @S2"),
            ("<!date^1392734382^{date}|18 February>", "18 February"),
            ("&lt;@U1&gt; &lt;!here&gt;", "<@U1> <!here>"),
            ("1 < 2 > 0 <> <b> <@> <", "1 < 2 > 0 <> <b> <@> <"),
            ("*bold* `code` :smile:", "*bold* `code` :smile:"),
        ],
    )
    def test_markup_becomes_what_its_reader_sees(self, text: str, plain: str) -> None:
        assert plain_text(text) == plain

    @settings(deadline=None)
    @given(st.text())
    def test_escaped_text_is_read_as_it_was(self, text: str) -> None:
        assert plain_text(escape(text)) == text
        assert escaped_length(text) == len(escape(text))

    @pytest.mark.parametrize(
        "text", [f"<@{BOT}> hello", f"  <@{BOT}|bot>: hello", f"<@{BOT}>, hello ", f"<@{BOT}>\nhello"]
    )
    def test_the_bots_name_in_front_is_dropped(self, text: str) -> None:
        assert only(receive(mention(text))).message == "hello"

    def test_names_elsewhere_stay(self) -> None:
        assert only(receive(mention(f"<@U1> ask <@{BOT}>"))).message == f"@U1 ask @{BOT}"

    def test_a_mention_without_a_word_is_a_message(self) -> None:
        assert only(receive(mention(f"<@{BOT}>"))).message == f"@{BOT}"

    def test_files_are_named_and_not_loaded(self) -> None:
        files = [
            {"id": "F1", "name": "plan.pdf", "url_private": "https://files.slack.com/plan.pdf"},
            {"id": "F2", "name": "room.png", "mimetype": "image/png"},
            {"id": "F3", "file_access": "check_file_info"},
        ]
        incoming = only(receive(direct("look", subtype="file_share", files=files)))

        assert incoming.message == "look"
        assert incoming.metadata == {"files": ["plan.pdf", "room.png"]}
        assert incoming.images == ()

    @pytest.mark.parametrize("text", ["", None])
    def test_files_without_a_text_are_a_message_of_their_names(self, text: str | None) -> None:
        files = [{"name": "plan.pdf"}, {"name": "room.png"}]

        assert only(receive(direct(text, files=files))).message == "[plan.pdf], [room.png]"
        assert only(receive(mention(f"<@{BOT}>", files=files))).message == "[plan.pdf], [room.png]"

    def test_what_slack_may_tell_otherwise_of_files_is_left_out(self) -> None:
        for files in ("plan.pdf", [], ["plan.pdf", None, {"name": 5}, {"name": ""}, {}]):
            assert only(receive(direct(files=files))).metadata == {}

    @pytest.mark.parametrize("text", ["", " \n", None])
    def test_nothing_said_is_no_message(self, text: str | None) -> None:
        assert receive(direct(text)).messages == []

    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
    def test_text_that_no_store_keeps_is_refused(self, text: str) -> None:
        for envelope in (direct(text), direct("look", files=[{"name": text}])):
            with pytest.raises(InvalidInputError):
                receive(envelope)


class TestCommands:
    def test_a_command_is_a_message_and_answered_to_the_user_alone(self) -> None:
        received = receive_form(**command())

        assert only(received) == Incoming(
            session_id="slack:T061EG9R6:C061EG9SL:U061F7AUR",
            message="when do you open?",
            turn_id="13345224609.738474920.8088930838d88f008e0",
            address={"channel": "C061EG9SL"},
            user_id="slack:T061EG9R6:U061F7AUR",
        )
        answer = json.loads(received.answer.body)
        assert (received.answer.status, received.answer.content_type) == (200, "application/json")
        assert answer["response_type"] == "ephemeral"
        assert answer["text"]

    def test_a_command_that_is_refused_is_answered_with_the_reason(self) -> None:
        received = receive_form(**command())

        assert received.refused is not None
        answer = json.loads(received.refused("Too long.").body)
        assert answer == {"response_type": "ephemeral", "text": "Too long."}
        assert receive(direct()).refused is None

    def test_each_use_of_a_command_is_a_turn_of_one_conversation(self) -> None:
        first, second = only(receive_form(**command())), only(receive_form(**command(trigger_id="1.2.3")))

        assert first.session_id == second.session_id
        assert first.turn_id != second.turn_id

    def test_its_text_is_plain(self) -> None:
        assert only(receive_form(**command(text=" <@U1|ann> &amp; <#C1|news> "))).message == "@ann & #news"

    @pytest.mark.parametrize("text", ["", "  "])
    def test_a_command_without_text_is_answered_with_what_to_do(self, text: str) -> None:
        received = receive_form(**command(text=text))

        assert received.messages == ()
        assert "after the command" in json.loads(received.answer.body)["text"]

    def test_interactions_come_to_nothing(self) -> None:
        assert receive_form(payload=json.dumps({"type": "block_actions"})) == Received()

    def test_the_check_of_the_certificate_is_answered(self) -> None:
        assert receive_form(ssl_check="1", token="XXYYZZ") == Received()
        assert receive_form(**command(ssl_check="1")) == Received()

    @pytest.mark.parametrize("field", ["team_id", "channel_id", "user_id", "trigger_id"])
    @pytest.mark.parametrize("value", ["", "a:b", "a/b", "\x00", "é"])
    def test_an_id_that_slack_would_not_give_is_refused(self, field: str, value: str) -> None:
        with pytest.raises(InvalidInputError, match=field):
            receive_form(**command(**{field: value}))

    @pytest.mark.parametrize(
        "body", [b"", b"a=b", b"command", b"\xff", b"text=%FF&command=a", b"&".join([b"a=1"] * 101)]
    )
    def test_other_forms_are_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidInputError):
            CHANNEL.receive(request(body, content_type=FORM) if body != b"\xff" else _unsigned(body, FORM))

    def test_text_that_is_not_utf_8_is_refused(self) -> None:
        body = urlencode(command()).encode() + b"%FF"

        with pytest.raises(InvalidInputError, match="UnicodeDecodeError"):
            CHANNEL.receive(request(body, content_type=FORM))

    def test_a_form_of_very_many_fields_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="no form"):
            receive_form(**command(), **{f"field{number}": "" for number in range(100)})

    def test_a_nul_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="NUL"):
            receive_form(**command(text="a\x00b"))


class TestHostileRequests:
    @pytest.mark.parametrize(
        "content_type", [None, "", "text/plain", "multipart/form-data; boundary=a", "\x00"]
    )
    def test_another_content_type_is_refused(self, content_type: str | None) -> None:
        headers = signed_headers(b"{}")
        headers.pop("content-type")
        if content_type is not None:
            headers["content-type"] = content_type

        with pytest.raises(InvalidInputError, match="Content-Type"):
            CHANNEL.receive(Request("POST", URL, headers, b"{}"))

    def test_content_types_may_have_parameters(self) -> None:
        assert receive(direct(), **{"content-type": "Application/JSON; charset=utf-8"}).messages

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            json.dumps(direct()).encode()[:-10],
            b"[" * 100_000,
            b'{"type":' * 100_000,
            b'{"type": "event_callback", "event": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b"1" * 5000,
            b"\xef\xbb\xbf{}",
            b"\xff\xfe{\x00}\x00",
            b"null",
            b"[]",
            b'"event_callback"',
            b"{}",
            b'{"type": null}',
            b'{"type": ["event_callback"]}',
            b'{"type": "event_callback"}',
            b'{"type": "event_callback", "event": "message"}',
            b'{"type": "url_verification"}',
            b'{"type": "url_verification", "challenge": 5}',
            b'{"type": "url_verification", "challenge": "\\ud800"}',
        ],
        ids=lambda body: body[:40].decode("latin-1"),
    )
    def test_a_body_without_the_form_of_a_request_is_refused(self, body: bytes) -> None:
        with pytest.raises(InvalidInputError):
            CHANNEL.receive(_unsigned(body))

    def test_ten_megabytes_are_more_than_a_request_may_have_and_do_no_harm(self) -> None:
        body = json.dumps(direct("<a" * 5_000_000)).encode()

        assert len(body) > SlackChannel.limits.body == 1_000_000
        assert len(only(receive(json.loads(body))).message) == 10_000_000
        read(_unsigned(b"[" * 10_000_000))
        read(_unsigned(b"command=" + b"&" * 10_000_000, FORM))

    def test_markup_without_end_takes_no_time(self) -> None:
        for text in ("<" * 900_000, "<a" * 450_000, "&" * 900_000, "<@" * 450_000, " " * 900_000):
            receive(direct(f"{text}."))

    def test_no_error_repeats_what_was_said(self) -> None:
        for envelope in (
            direct("secret\x00"),
            direct("secret\ud800"),
            direct("secret", ts="1"),
            direct(text=None, files=[{"name": "secret\x00"}]),
        ):
            with pytest.raises(InvalidInputError) as caught:
                receive(envelope)
            assert "secret" not in str(caught.value)

    @settings(deadline=None)
    @given(st.binary(), st.sampled_from(["application/json", FORM, "text/plain"]))
    def test_any_body_is_read_or_refused(self, body: bytes, content_type: str) -> None:
        read(_unsigned(body, content_type))

    @settings(deadline=None, max_examples=500)
    @given(st.data())
    def test_any_value_at_any_place_is_read_or_refused(self, data: st.DataObject) -> None:
        envelope = copy.deepcopy(data.draw(st.sampled_from(FULL)))
        for path in data.draw(st.lists(st.sampled_from(list(paths(envelope))), min_size=1, max_size=3)):
            put(envelope, path, data.draw(JSON))

        read(_unsigned(json.dumps(envelope).encode()))

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from(sorted(command())) | st.text(max_size=5), st.text(max_size=20)))
    def test_any_command_is_read_or_refused(self, fields: dict[str, str]) -> None:
        body = urlencode({**command(), **fields}, errors="surrogatepass").encode()

        read(_unsigned(body, FORM))


class TestSetUp:
    @pytest.fixture(autouse=True)
    def _bare_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(f"INTURN_{name}", raising=False)

    def test_both_settings_make_the_channel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLACK_BOT_TOKEN", BOT_TOKEN)
        monkeypatch.setenv("SLACK_SIGNING_SECRET", SIGNING_SECRET)
        channel = from_settings(load_settings())

        assert channel
        assert channel.name == "slack"
        channel.verify(request(b"{}"))

    @pytest.mark.parametrize("empty", [None, "", " "])
    def test_without_settings_there_is_no_channel(self, empty: str | None) -> None:
        assert from_settings(load_settings(slack_bot_token=empty, slack_signing_secret=empty)) is None

    @pytest.mark.parametrize(
        ("given", "missing"),
        [("slack_bot_token", "SLACK_SIGNING_SECRET"), ("slack_signing_secret", "SLACK_BOT_TOKEN")],
    )
    def test_one_of_two_settings_names_the_other(self, given: str, missing: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{missing} is not set") as caught:
            from_settings(load_settings(**{given: "secret"}))
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["", "slack.com/api/", "https://", "file:///etc/passwd", "ftp://slack.com"]
    )
    def test_a_base_url_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="INTURN_SLACK_BASE_URL"):
            SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=url)

    def test_the_driver_is_loaded_with_the_channel_only(self) -> None:
        script = "import sys, inturn.channels.slack; print('slack_sdk' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert done.stdout == "False\n"

    def test_a_missing_driver_is_named_with_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "slack_sdk"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "slack_sdk", None)

        with pytest.raises(MissingDriverError, match=r"pip install 'inturn\[slack\]'"):
            SlackChannel(BOT_TOKEN, SIGNING_SECRET)

    def test_the_manifest_asks_for_what_the_channel_needs(self) -> None:
        page = Path(ROOT / "docs/slack.md").read_text()
        block = re.search(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
        assert block
        manifest = yaml.safe_load(block[1])
        needed = {
            "app_mention": "app_mentions:read",
            "message.channels": "channels:history",
            "message.groups": "groups:history",
            "message.im": "im:history",
            "message.mpim": "mpim:history",
        }

        subscriptions = manifest["settings"]["event_subscriptions"]
        assert set(subscriptions["bot_events"]) == set(needed)
        assert set(manifest["oauth_config"]["scopes"]["bot"]) == {*needed.values(), "chat:write", "commands"}
        slash = manifest["features"]["slash_commands"][0]
        assert subscriptions["request_url"] == slash["url"] == URL
        assert slash["should_escape"] is True
        assert manifest["features"]["app_home"]["messages_tab_read_only_enabled"] is False


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(categories=None), max_size=10)
    | st.sampled_from(
        [BOT, "T1", "C1", "D1", "im", "message", "1515449522.000016", f"<@{BOT}>", "event_callback"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FULL = [
    direct(thread_ts="1515449000.000001", parent_user_id=BOT, subtype="file_share", files=[{"name": "a"}]),
    mention(thread_ts="1515449000.000001", parent_user_id=BOT, bot_id="", files=[{"name": "a"}]),
    event(thread_ts="1515449000.000001", parent_user_id=BOT, hidden=False),
    {"type": "url_verification", "challenge": "abc"},
]


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value."""
    if so_far:
        yield so_far
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*so_far, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    """Put `new` at a place, if it is still there."""
    with contextlib.suppress(LookupError, TypeError):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = new


def read(received: Request) -> None:
    """Receive a request that may have any form; what comes of it can be enqueued."""
    try:
        messages = CHANNEL.receive(received).messages
    except InvalidInputError:
        return
    for each in messages:
        assert create_turn_id(each.session_id, each.turn_id)
        respond_payload(
            load_settings(), each.session_id, each.message, user_id=each.user_id, metadata=each.metadata
        )
        json.dumps(each.address)


def _unsigned(body: bytes, content_type: str = "application/json") -> Request:
    return Request("POST", URL, {"content-type": content_type}, body)
