"""A word planted in turns of every kind, to be looked for where nothing of what was said may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from inturn.client import Client
from inturn.persistence import open_adapter
from tests.agents import let_go, read_journal
from tests.waiting import wait_until

MARK = "xylophone"

ENDS = {
    "plain": "SUCCESS",
    "streamed": "SUCCESS",
    "delivered": "SUCCESS",
    "undelivered": "SUCCESS",
    "retried": "SUCCESS",
    "refused": "FAILURE",
    "bug": "FAILURE",
    "saved": "SUCCESS",
    "running": "SUCCESS",
    "parked": "SUCCESS",
    "parked-refused": "FAILURE",
    "merged-1": "SUCCESS",
    "merged-2": "SUCCESS",
    "interrupted": "SUCCESS",
    "interrupting": "SUCCESS",
    "bare": "SUCCESS",
    "positional": "SUCCESS",
    "refused-bare": "FAILURE",
    "later": "RECEIVED",
}
"""How each of the turns ends, as Flower says it. `later` is held by a worker for ten minutes."""

Turns = dict[str, str]
"""The IDs of turns by the names above."""


def planted_env(env: dict[str, str], receiver_url: str) -> dict[str, str]:
    """What workers need to take these turns."""
    return {
        **env,
        "INTURN_AGENT": "tests.channels:agent",
        "INTURN_CHANNELS": "tests.channels:channel",
        "TEST_RECEIVER": receiver_url,
        "INTURN_LOG_LEVEL": "DEBUG",
        "INTURN_MAX_ATTEMPTS": "2",
    }


@contextmanager
def planted(client: Client, broker_url: str, journal: Path) -> Iterator[Turns]:
    """Plant the word; inside the block some of the turns run and others wait, until it is left.

    A worker with eight slots must run. On leaving, all of them end but `later`.
    """
    turns: Turns = {}

    def say(name: str, text: str, session_id: str | None = None, **options: object) -> None:
        handle = client.respond(session_id or f"s-{name}", f"{MARK} {text}", user_id="ada", **options)  # type: ignore[arg-type]
        turns[name] = handle.turn_id

    say("plain", "hello", metadata={"note": MARK})
    say("streamed", "hello", stream=True)
    say("delivered", "hello", channel="recording", address={"to": MARK})
    say("undelivered", "refuse", channel="recording", address={"to": MARK})
    say("retried", "unavailable 1")
    say("refused", "refused")
    say("bug", "bug")
    turns["saved"] = client.save_session("s-saved", data={"word": MARK}, metadata={"note": MARK}).turn_id
    say("running", "pause", "s-parked", stream=True)
    say("interrupted", "pause", "s-stopped", stream=True)
    say("before-merged", "pause", "s-merged", stream=True)
    held = [f"{MARK} pause"] * 3
    wait_until(lambda: [call.text for call in read_journal(journal) if "pause" in call.text] == held)
    say("parked", "hello", "s-parked")
    say("parked-refused", "refused", "s-parked")
    say("interrupting", "hello", "s-stopped", overlap="interrupt")
    say("merged-1", "one", "s-merged", overlap="merge")
    say("merged-2", "two", "s-merged", overlap="merge")
    with Celery(broker=broker_url, backend=broker_url) as bare:
        # Tells whoever listens what it sends.
        bare.conf.task_send_sent_event = True

        def send(name: str, *args: object, countdown: float | None = None, **kwargs: object) -> None:
            turns[name] = bare.send_task("respond", args=args, kwargs=kwargs, countdown=countdown).id

        send("bare", session_id="s-bare", message=MARK, metadata={"note": MARK})
        send("positional", "s-positional", MARK)
        send("refused-bare", session_id="s-refused", message=MARK, stream="\0" + MARK, channel=[MARK])
        send("later", session_id="s-later", message=MARK, countdown=600)
    try:
        yield turns
    finally:
        let_go(journal)


def assert_planted(store_url: str) -> None:
    """The word is where it belongs: a test that finds it nowhere else has looked for something."""
    with open_adapter(store_url) as store:
        loaded = store.load("s-parked", last_messages=20)
    assert loaded is not None
    assert any(MARK in message.content for message in loaded.messages)
