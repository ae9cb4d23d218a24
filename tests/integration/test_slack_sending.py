"""SlackChannel's replies, against a stand-in for Slack's Web API: what arrives, and what is known if not."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inturn.channels import Incoming
from inturn.channels.slack import SlackChannel, from_settings
from inturn.errors import ChannelError, DeliveryRefusedError, DeliveryUnavailableError, DeliveryUnknownError
from inturn.settings import load_settings
from tests.servers_slack import BOT_TOKEN, SIGNING_SECRET, SlackStub

IN_CHANNEL = {"channel": "C061EG9SL", "thread_ts": "1515449522.000016"}
IN_DIRECT = {"channel": "D024BE91L"}


@pytest.fixture
def slack() -> Iterator[SlackStub]:
    with SlackStub() as stub:
        yield stub


@pytest.fixture
def channel(slack: SlackStub) -> SlackChannel:
    return SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=slack.url)


class TestMessages:
    def test_a_reply_arrives_in_its_thread(self, slack: SlackStub, channel: SlackChannel) -> None:
        sent = channel.send(IN_CHANNEL, "We open at nine.")

        (message,) = slack.messages
        assert (message.channel, message.thread_ts) == ("C061EG9SL", "1515449522.000016")
        assert (message.text, message.ts) == ("We open at nine.", sent)

    def test_a_reply_to_a_direct_message_is_in_no_thread(
        self, slack: SlackStub, channel: SlackChannel
    ) -> None:
        channel.send(IN_DIRECT, "We open at nine.")

        assert slack.messages[0].thread_ts is None
        assert "thread_ts" not in slack.messages[0].fields

    @pytest.mark.parametrize("address", [IN_CHANNEL, IN_DIRECT], ids=["thread", "direct"])
    def test_who_is_refused_is_told_so_alone(
        self, address: dict[str, Any], slack: SlackStub, channel: SlackChannel
    ) -> None:
        message = Incoming(
            session_id="s", message="long", turn_id="t", address=address, user_id="slack:T1:U061F7AUR"
        )
        channel.refused(message, "Too long: <3")

        (whisper,) = slack.whispers
        assert (whisper["channel"], whisper["user"]) == (address["channel"], "U061F7AUR")
        assert whisper.get("thread_ts") == address.get("thread_ts")
        assert whisper["text"] == "Too long: &lt;3"
        assert slack.messages == []

    def test_the_settings_say_where_slack_is(self, slack: SlackStub) -> None:
        settings = load_settings(
            slack_bot_token=BOT_TOKEN,
            slack_signing_secret=SIGNING_SECRET,
            slack_base_url=slack.url.rstrip("/"),
        )
        made = from_settings(settings)
        assert made
        made.send(IN_DIRECT, "hello")

        assert [message.text for message in slack.messages] == ["hello"]

    @pytest.mark.parametrize(
        ("reply", "sent"),
        [
            ("<!channel> <!here> <!everyone>", "&lt;!channel&gt; &lt;!here&gt; &lt;!everyone&gt;"),
            (
                "<@U061F7AUR> <#C1|news> <!subteam^S1>",
                "&lt;@U061F7AUR&gt; &lt;#C1|news&gt; &lt;!subteam^S1&gt;",
            ),
            ("<https://evil.example|your bank>", "&lt;https://evil.example|your bank&gt;"),
            ("&lt;!channel&gt;", "&amp;lt;!channel&amp;gt;"),
            ("if a < b && c > d", "if a &lt; b &amp;&amp; c &gt; d"),
            ("@channel @here *bold* `code`", "@channel @here *bold* `code`"),
        ],
    )
    def test_nothing_in_a_reply_becomes_a_mention_or_a_link(
        self, slack: SlackStub, channel: SlackChannel, reply: str, sent: str
    ) -> None:
        channel.send(IN_CHANNEL, reply)

        fields = slack.messages[0].fields
        assert fields["text"] == sent
        assert (fields["parse"], fields["link_names"]) == ("none", False)
        assert (fields["unfurl_links"], fields["unfurl_media"]) == (False, False)
        assert not {"blocks", "attachments", "markdown_text"} & set(fields)

    @pytest.mark.parametrize("sentence", ["Nine & five make < 15. ", "<<<<>>>>&&&& is no word. ", "&" * 9000])
    def test_a_long_reply_arrives_in_parts_that_slack_takes(
        self, slack: SlackStub, channel: SlackChannel, sentence: str
    ) -> None:
        reply = (sentence * (20_000 // len(sentence))).strip()
        for part in channel.parts(reply):
            channel.send(IN_CHANNEL, part)

        texts = [message.text for message in slack.messages]
        assert len(texts) > 5
        assert max(map(len, texts)) <= 4_000
        back = "".join(texts).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert back.replace(" ", "") == reply.replace(" ", "")
        if "." in sentence:
            assert all(text.endswith(".") for text in texts)

    def test_an_empty_reply_is_not_sent(self, channel: SlackChannel) -> None:
        assert channel.parts(" \n ") == []

    def test_threads_share_a_channel(self, slack: SlackStub, channel: SlackChannel) -> None:
        with ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(lambda number: channel.send(IN_DIRECT, f"number {number}"), range(40)))

        assert sorted(message.text for message in slack.messages) == sorted(
            f"number {number}" for number in range(40)
        )
        assert len(set(sent)) == 40


class TestUnavailable:
    """It is certain that nothing was sent."""

    def test_too_many_requests_are_to_be_tried_again_when_slack_says(
        self, slack: SlackStub, channel: SlackChannel
    ) -> None:
        slack.fail_next(retry_after=30)

        with pytest.raises(DeliveryUnavailableError, match="429") as caught:
            channel.send(IN_CHANNEL, "hello")
        assert caught.value.retry_after == 30
        assert slack.messages == []
        assert channel.send(IN_CHANNEL, "hello")

    def test_too_many_requests_may_be_said_by_what_is_between(
        self, slack: SlackStub, channel: SlackChannel
    ) -> None:
        slack.fail_next(status=429, body="<html>slow down</html>")

        with pytest.raises(DeliveryUnavailableError, match="429"):
            channel.send(IN_CHANNEL, "hello")

    @pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan", ""])
    def test_a_time_that_is_none_is_left_out(
        self, slack: SlackStub, channel: SlackChannel, value: str
    ) -> None:
        slack.fail_next(retry_after=value)

        with pytest.raises(DeliveryUnavailableError) as caught:
            channel.send(IN_CHANNEL, "hello")
        assert caught.value.retry_after is None

    @pytest.mark.parametrize(
        ("error", "status"),
        [("ratelimited", 200), ("rate_limited", 200), ("service_unavailable", 503), ("request_timeout", 408)],
    )
    def test_errors_that_pass_are_to_be_tried_again(
        self, slack: SlackStub, channel: SlackChannel, error: str, status: int
    ) -> None:
        slack.fail_next(error, status=status)

        with pytest.raises(DeliveryUnavailableError, match=error):
            channel.send(IN_CHANNEL, "hello")

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        channel = SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=f"http://127.0.0.1:{port}/api/")

        with pytest.raises(DeliveryUnavailableError, match="ConnectionRefusedError"):
            channel.send(IN_CHANNEL, "hello")

    def test_the_name_is_not_known(self) -> None:
        channel = SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url="http://slack.invalid/api/")

        with pytest.raises(DeliveryUnavailableError, match="gaierror"):
            channel.send(IN_CHANNEL, "hello")

    def test_the_connection_is_not_made_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            address = server.getsockname()
            with socket.create_connection(address), _FullBacklog(address):
                channel = SlackChannel(
                    BOT_TOKEN, SIGNING_SECRET, base_url=f"http://127.0.0.1:{address[1]}/api/", timeout=1
                )
                with pytest.raises(DeliveryUnavailableError, match="nothing was sent"):
                    channel.send(IN_CHANNEL, "hello")

    def test_the_connection_breaks_before_the_whole_request_is_sent(self) -> None:
        received = []

        def reset(server: socket.socket) -> None:
            line, _ = server.accept()
            received.append(line.recv(1000))
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=reset, args=(server,), daemon=True)
            thread.start()
            url = f"http://127.0.0.1:{server.getsockname()[1]}/api/"
            with pytest.raises(DeliveryUnavailableError, match="nothing was sent"):
                SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=url).send(IN_CHANNEL, "a" * 50_000_000)
            thread.join(10)
        assert received

    def test_the_other_side_does_not_speak_tls(self, slack: SlackStub) -> None:
        channel = SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=slack.url.replace("http:", "https:"))

        with pytest.raises(DeliveryUnavailableError, match="SSLError"):
            channel.send(IN_CHANNEL, "hello")
        assert slack.messages == []


class TestRefused:
    """Slack has said no, and would again."""

    @pytest.mark.parametrize(
        "error",
        ["is_archived", "msg_too_long", "restricted_action", "something_new", "message_limit_exceeded"],
    )
    def test_an_error_of_slack_is_for_good(self, slack: SlackStub, channel: SlackChannel, error: str) -> None:
        slack.fail_next(error)

        with pytest.raises(DeliveryRefusedError, match=error):
            channel.send(IN_CHANNEL, "hello")

    def test_a_wrong_token_is_named(self, slack: SlackStub) -> None:
        channel = SlackChannel("xoxb-another", SIGNING_SECRET, base_url=slack.url)

        with pytest.raises(DeliveryRefusedError, match=r"invalid_auth.*check SLACK_BOT_TOKEN") as caught:
            channel.send(IN_CHANNEL, "hello")
        assert "xoxb" not in str(caught.value)

    def test_a_channel_without_the_bot_is_named_with_the_mend(
        self, slack: SlackStub, channel: SlackChannel
    ) -> None:
        slack.unknown_channels.add("C061EG9SL")

        with pytest.raises(DeliveryRefusedError, match=r"channel_not_found.*invite the bot"):
            channel.send(IN_CHANNEL, "hello")

    @pytest.mark.parametrize("status", [400, 403, 404, 413])
    def test_a_refusal_without_words_is_for_good(
        self, slack: SlackStub, channel: SlackChannel, status: int
    ) -> None:
        slack.fail_next(status=status, body="<html>no</html>")

        with pytest.raises(DeliveryRefusedError, match=f"HTTP {status}"):
            channel.send(IN_CHANNEL, "hello")

    @pytest.mark.parametrize("address", [{}, {"channel": None}, {"channel": 5}])
    def test_an_address_without_a_channel_is_refused(
        self, slack: SlackStub, channel: SlackChannel, address: dict[str, object]
    ) -> None:
        with pytest.raises(DeliveryRefusedError, match="address"):
            channel.send(address, "hello")
        assert slack.requests == []


class TestUnknown:
    """The message may have arrived."""

    @pytest.mark.parametrize("posts", [False, True])
    def test_a_connection_that_breaks_after_the_request(
        self, slack: SlackStub, channel: SlackChannel, posts: bool
    ) -> None:
        slack.fail_next(line="drops", posts=posts)

        with pytest.raises(DeliveryUnknownError, match="broke before its answer"):
            channel.send(IN_CHANNEL, "hello")
        assert slack.requests == ["chat.postMessage"]  # not repeated, for it may have arrived

    def test_an_answer_that_does_not_come_in_time(self, slack: SlackStub) -> None:
        channel = SlackChannel(BOT_TOKEN, SIGNING_SECRET, base_url=slack.url, timeout=1)
        slack.fail_next(line="hangs", posts=True)

        with pytest.raises(DeliveryUnknownError, match="TimeoutError"):
            channel.send(IN_CHANNEL, "hello")
        assert slack.requests == ["chat.postMessage"]

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    @pytest.mark.parametrize("body", ["", "<html>bad gateway</html>", '{"ok": false}'])
    def test_a_server_that_fails_without_saying_how(
        self, slack: SlackStub, channel: SlackChannel, status: int, body: str
    ) -> None:
        slack.fail_next(status=status, body=body)

        with pytest.raises(DeliveryUnknownError, match=f"HTTP {status}"):
            channel.send(IN_CHANNEL, "hello")
        assert slack.requests == ["chat.postMessage"]

    @pytest.mark.parametrize("error", ["internal_error", "fatal_error"])
    def test_errors_of_which_slack_says_that_something_may_be_done(
        self, slack: SlackStub, channel: SlackChannel, error: str
    ) -> None:
        slack.fail_next(error, posts=True)

        with pytest.raises(DeliveryUnknownError, match=error):
            channel.send(IN_CHANNEL, "hello")

    @pytest.mark.parametrize(
        "body",
        ["", "null", "[]", "[1]", '"ok"', "5", "{", "{}", '{"ok": false}', '{"ok": 0, "error": 5}', "<html>"],
    )
    def test_an_answer_that_cannot_be_read(self, slack: SlackStub, channel: SlackChannel, body: str) -> None:
        slack.fail_next(body=body, posts=True)

        with pytest.raises(DeliveryUnknownError):
            channel.send(IN_CHANNEL, "hello")

    def test_it_is_not_sent_again(self, channel: SlackChannel) -> None:
        assert channel.repeats_unknown is False


class TestAccepted:
    def test_the_thread_shows_that_the_bot_is_at_work(self, slack: SlackStub, channel: SlackChannel) -> None:
        channel.accepted(IN_CHANNEL)

        assert [(each["channel_id"], each["thread_ts"]) for each in slack.statuses] == [
            ("C061EG9SL", "1515449522.000016")
        ]

    def test_outside_of_threads_there_is_no_such_sign(self, slack: SlackStub, channel: SlackChannel) -> None:
        channel.accepted(IN_DIRECT)

        assert slack.requests == []

    def test_it_raises_what_sending_raises(self, slack: SlackStub, channel: SlackChannel) -> None:
        slack.fail_next("missing_scope")
        with pytest.raises(DeliveryRefusedError, match=r"missing_scope.*chat:write"):
            channel.accepted(IN_CHANNEL)

        slack.fail_next(line="drops")
        with pytest.raises(DeliveryUnknownError):
            channel.accepted(IN_CHANNEL)


class TestSilence:
    @pytest.fixture(autouse=True)
    def _everything_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "slack_sdk.web.base_client")

    def test_what_is_said_is_not_logged(
        self, channel: SlackChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel.send(IN_CHANNEL, "secret")
        channel.accepted(IN_CHANNEL)

        assert "secret" not in caplog.text
        assert BOT_TOKEN not in caplog.text

    @pytest.mark.parametrize(
        "how",
        [
            {"body": '{"ok": false, "error": "no_text", "text": "secret"}'},
            {"body": '{"ok": false, "error": "secret text"}'},
            {"status": 502, "body": "<html>secret</html>"},
            {"line": "drops"},
        ],
    )
    def test_what_is_said_is_in_no_error(
        self, slack: SlackStub, channel: SlackChannel, caplog: pytest.LogCaptureFixture, how: dict[str, Any]
    ) -> None:
        slack.fail_next(**how)

        with pytest.raises(ChannelError) as caught:
            channel.send(IN_CHANNEL, "secret")
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert "secret" not in told.replace('"secret"', "")  # the test's own line
        assert BOT_TOKEN not in told


class _FullBacklog:
    """Connections to a server that accepts none, until no further one is made."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._open: list[socket.socket] = []

    def __enter__(self) -> None:
        for _ in range(20):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(self._address)
            self._open.append(each)

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            each.close()
