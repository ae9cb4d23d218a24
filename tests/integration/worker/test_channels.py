"""The whole way: signed webhooks in, replies out, while workers and the web process are killed."""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import httpx
import pytest

from inturn.ids import create_turn_id
from inturn.persistence import PersistenceAdapter
from inturn.session.state import Delivery, utcnow
from inturn.testing.history import Accepted, check_store
from tests.integration.worker.conftest import StartWorker
from tests.servers_mockpost import MockPost, mockpost
from tests.servers_slack import BOT_TOKEN, SIGNING_SECRET, SlackStub, signed_headers
from tests.twilio_webhooks import validator
from tests.waiting import wait_until
from tests.web import Web, web_process

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

TWILIO_TOKEN = "a-token"
PUBLIC = "https://chat.example.com"
OURS = "+15005550006"
CONVERSATIONS, MESSAGES = 8, 5
"""Of each channel, and of each conversation."""


class Event(NamedTuple):
    """A message of a user as its platform delivers it, again and again until it is answered with 2xx."""

    session_id: str
    turn_id: str
    text: str
    path: str
    body: bytes
    headers: dict[str, str]


def slack_event(conversation: int, number: int) -> Event:
    channel, text = f"D{conversation:03}", f"slack {conversation} message {number}"
    ts = f"17000{conversation:05}.{number:06}"
    body = json.dumps(
        {
            "type": "event_callback",
            "event_id": f"Ev{secrets.token_hex(5).upper()}",
            "team_id": "T1",
            "authorizations": [{"user_id": "UBOT", "team_id": "T1"}],
            "event": {
                "type": "message",
                "channel_type": "im",
                "channel": channel,
                "user": f"U{conversation:03}",
                "text": text,
                "ts": ts,
            },
        }
    ).encode()
    return Event(f"slack:T1:{channel}", f"{channel}:{ts}", text, "/channels/slack", body, {})


def sms_event(conversation: int, number: int) -> Event:
    sender, text = f"+1555123{conversation:04}", f"sms {conversation} message {number}"
    sid = f"SM{secrets.token_hex(16)}"
    fields = {"MessageSid": sid, "From": sender, "To": OURS, "Body": text, "NumMedia": "0"}
    signature = validator(TWILIO_TOKEN).compute_signature(f"{PUBLIC}/channels/sms", fields)
    headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": signature}
    return Event(f"sms:{OURS}:{sender}", sid, text, "/channels/sms", urlencode(fields).encode(), headers)


class Platform:
    """Delivers the events of each conversation in order, each until it is accepted, some of them twice."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.accepted: list[Event] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, conversations: list[list[Event]]) -> None:
        for events in conversations:
            thread = threading.Thread(target=self._deliver, args=(events,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "an event was never accepted"

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            for _ in range(random.choice([1, 1, 2])):  # again though it was answered: the answer was lost
                wait_until(partial(self._is_taken, event), timeout=100)
            with self._lock:
                self.accepted.append(event)
            time.sleep(random.uniform(0.1, 0.5))  # people type

    def _is_taken(self, event: Event) -> bool:
        headers = signed_headers(event.body) if "slack" in event.path else event.headers
        try:
            answer = httpx.post(self._url + event.path, content=event.body, headers=headers, timeout=20)
        except httpx.TransportError:
            return False
        assert answer.status_code in (200, 429, 502, 503), answer.text
        return answer.status_code == 200


@pytest.fixture
def slack() -> Iterator[SlackStub]:
    with SlackStub() as stub:
        yield stub


@pytest.fixture
def twilio() -> Iterator[MockPost]:
    with mockpost() as server:
        yield server


@pytest.fixture
def worker_env(
    worker_env: dict[str, str], fast: dict[str, str], slack: SlackStub, twilio: MockPost
) -> dict[str, str]:
    return {
        **worker_env,
        **fast,
        "SLACK_BOT_TOKEN": BOT_TOKEN,
        "SLACK_SIGNING_SECRET": SIGNING_SECRET,
        "INTURN_SLACK_BASE_URL": slack.url,
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "INTURN_TWILIO_BASE_URL": twilio.url,
        "INTURN_PUBLIC_URL": PUBLIC,
    }


@pytest.fixture
def web(tmp_path: Path, worker_env: dict[str, str]) -> Iterator[Web]:
    with web_process(tmp_path, worker_env) as web:
        yield web


@pytest.mark.parametrize("store_kind", ["postgresql"])
def test_every_accepted_message_gets_one_reply_in_order_whatever_dies(
    web: Web, slack: SlackStub, twilio: MockPost, start_worker: StartWorker, store: PersistenceAdapter
) -> None:
    began = utcnow()
    conversations = [[slack_event(c, n) for n in range(MESSAGES)] for c in range(CONVERSATIONS)]
    conversations += [[sms_event(c, n) for n in range(MESSAGES)] for c in range(CONVERSATIONS)]
    platform = Platform(web.url)
    workers = [start_worker(concurrency=8) for _ in range(2)]
    slack.fail_next("ratelimited", status=429, retry_after=1, times=2)

    platform.start(conversations)
    wait_until(lambda: len(slack.messages) > 5, timeout=60)
    workers[0].kill("SIGKILL")
    workers.append(start_worker(concurrency=8))
    web.process.kill("SIGKILL")
    web.process.start()
    wait_until(lambda: len(twilio.messages()) > 15, timeout=60)
    slack.fail_next(line="drops", posts=True)  # it was taken, and nobody knows
    workers[1].kill("SIGKILL")
    workers.append(start_worker(concurrency=8))
    platform.join()

    events = platform.accepted
    assert len(events) == 2 * CONVERSATIONS * MESSAGES
    wait_until(lambda: all_over(store, events), timeout=120, what="all deliveries to end")

    accepted = [
        Accepted(event.session_id, create_turn_id(event.session_id, event.turn_id), order, began)
        for order, event in enumerate(events)
    ]
    verdict = check_store(store, accepted)
    assert verdict.ok, verdict.explain()
    assert (verdict.committed, verdict.failed) == (len(events), 0), "one committed reply to each message"

    said: dict[str, list[str]] = defaultdict(list)
    for message in slack.messages:
        said[f"slack:T1:{message.channel}"].append(message.text)
    for text in twilio.messages():
        said[f"sms:{text.sender}:{text.to}"].append(text.body)
    sent = {session_id: deliveries(store, session_id) for session_id in said}
    for conversation in conversations:
        session_id = conversation[0].session_id
        replies = [f"you said: {event.text}" for event in conversation]
        once = list(dict.fromkeys(said[session_id]))
        assert once == [reply for reply in replies if reply in once], "replies leave in order"
        states = [each.state for each in sent[session_id]]
        assert set(states) <= {"sent", "unknown"}
        assert len(once) >= states.count("sent"), "what counts as sent has arrived"
        marked = sum(each.state == "unknown" or each.doubtful for each in sent[session_id])
        astray = len(replies) - len(once) + len(said[session_id]) - len(once)
        assert astray <= marked, "each reply that is missing or doubled is marked"
    unknown = [each for session in sent.values() for each in session if each.state == "unknown"]
    assert unknown, "of the reply whose answer was dropped nobody can tell"


def deliveries(store: PersistenceAdapter, session_id: str) -> list[Delivery]:
    found = store.load(session_id)
    return [] if found is None else list(found.session.outbox.values())


def all_over(store: PersistenceAdapter, events: list[Event]) -> bool:
    found = [
        each
        for session_id in {event.session_id for event in events}
        for each in deliveries(store, session_id)
    ]
    return len(found) == len(events) and all(each.is_over for each in found)
