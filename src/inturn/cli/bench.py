"""`inturn bench`: a load on the deployment that the environment names, and what it bore."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inturn.cli.conversations import Line
from inturn.cli.exits import DONE, FAILED, TIMED_OUT
from inturn.cli.local import local_settings
from inturn.cli.output import bar, note, out, print_json, spinner
from inturn.cli.recorded import replay_bar
from inturn.cli.replay import Latency, ReplayReport, replay
from inturn.cli.report import print_verdict
from inturn.cli.session_changes import busy_among, forget, turns_of
from inturn.client import Client
from inturn.errors import ConfigurationError, InturnError, TurnTimeoutError
from inturn.persistence import PersistenceAdapter, SessionQuery, Target
from inturn.persistence.adapter import MAX_PAGE
from inturn.persistence.opening import open_store
from inturn.turns import Mailbox
from inturn.turns.connection import connect

if TYPE_CHECKING:
    from inturn.settings import Settings

USER = "inturn-bench"
"""The user of all sessions that a bench makes, and what their IDs begin with."""
OURS = re.compile(rf"{USER}:[0-9a-f]{{16}}:\d+", re.A)
"""The IDs of such sessions. None that looks otherwise is ever written to or deleted."""

_PATIENCE = 30.0
"""How long the turns that still run at the end are given, in seconds."""
_BATCH = 100


def run_bench(turns: int, sessions: int, producers: int, text: str, timeout: float, *, as_json: bool) -> int:
    """Run it and print the figures. Returns the exit code."""
    settings = local_settings()
    run = secrets.token_hex(8)
    sessions = min(sessions, turns)
    ids = [f"{USER}:{run}:{number}" for number in range(sessions + 1)]
    note(
        f"{turns} turns over {sessions} sessions, {USER}:{run}:*, which are deleted at the end; the workers' "
        "agent takes each turn, with its language model if it has one",
        "dim",
    )
    with open_store(settings) as store, Client(settings) as client:
        if not store.durable:
            raise ConfigurationError(
                "this store is in each process's own memory, and what the workers write cannot be looked at: "
                "set DATABASE_URL as they have it"
            )
        client.ping()
        try:
            _check_that_they_are_new(settings, store, ids)
            _warm_up(client, store, ids[0], text, timeout)
            lines = [
                Line(number, ids[1 + number % sessions], text, f"t{number}", USER)
                for number in range(1, turns + 1)
            ]
            with replay_bar("benching") as show:
                report = replay(client, store, lines, producers=producers, timeout=timeout, on_progress=show)
        finally:
            try:
                left = _clean(settings, store, client, ids)
            except BaseException:
                note("its sessions were not all deleted; `inturn bench --clean` removes them")
                raise
    figures = _figures(report) | {"run": run, "sessions": sessions, "producers": producers, "left": left}
    if as_json:
        print_json(figures)
    else:
        _print(report, figures)
    if report.unanswered:
        return TIMED_OUT
    return DONE if report.ok and not report.failed and not left else FAILED


def run_clean(*, as_json: bool) -> int:
    """Remove what earlier benches have left. Returns the exit code."""
    settings = local_settings()
    with open_store(settings) as store, Client(settings) as client:
        found = set()
        cursor: str | None = None
        while True:
            query = SessionQuery(user_id=USER, order="oldest", cursor=cursor, limit=MAX_PAGE, unreadable=True)
            page = store.find_sessions(query)
            found |= {session.id for session in page.items if OURS.fullmatch(session.id)}
            if (cursor := page.cursor) is None:
                break
        with connect(settings) as redis:
            waiting = Mailbox(redis, settings).items()
            found |= {item.session_id for item in waiting if OURS.fullmatch(item.session_id)}
        left = _clean(settings, store, client, sorted(found))
    if as_json:
        print_json({"removed": len(found) - left, "left": left})
    else:
        out().print(f"{len(found) - left} sessions of benches removed")
    return FAILED if left else DONE


def _check_that_they_are_new(settings: Settings, store: PersistenceAdapter, ids: Sequence[str]) -> None:
    if busy_among(settings, ids) or store.load(ids[0]) is not None:
        raise InturnError(f"there are sessions {ids[0]!r} and so on already; run it again for other names")


def _warm_up(client: Client, store: PersistenceAdapter, session_id: str, text: str, timeout: float) -> None:
    """One turn by itself: is there a worker, and do we look at its store?"""
    with spinner("waiting for a worker"):
        try:
            client.respond(session_id, text, turn_id="t0", user_id=USER).get(timeout)
        except TurnTimeoutError:
            raise TurnTimeoutError(
                f"no worker has answered within {timeout:g} s; `inturn doctor` says what is amiss"
            ) from None
    if store.load(session_id) is None:
        raise ConfigurationError(
            "the workers write to another store than this one: set DATABASE_URL as they have it"
        )


def _clean(settings: Settings, store: PersistenceAdapter, client: Client, ids: Sequence[str]) -> int:
    """Stop what still waits or runs of these sessions and delete them; gives how many are left."""
    assert all(OURS.fullmatch(session_id) for session_id in ids)
    with bar("deleting its sessions", "sessions", len(ids)) as watch, connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        until = time.monotonic() + _PATIENCE
        while busy := sorted(mailbox.waiting(ids)):
            for session_id in busy:
                # The last one first: else each of them would begin before it is dropped.
                for turn_id in mailbox.queue(session_id)[::-1]:
                    client.cancel(session_id, turn_id)
            if time.monotonic() > until:
                note(f"{len(busy)} sessions are still at work; `inturn bench --clean` removes them later")
                break
            time.sleep(0.1)
        idle = [session_id for session_id in ids if session_id not in busy]
        for start in range(0, len(idle), _BATCH):
            turns = {session_id: turns_of(store, session_id) for session_id in idle[start : start + _BATCH]}
            store.delete_sessions([Target(session_id) for session_id in turns])
            forget(settings, turns)
            watch(start + len(turns), None)
    return len(busy)


def _figures(report: ReplayReport) -> dict[str, Any]:
    def ms(latency: Latency | None) -> dict[str, float] | None:
        if latency is None:
            return None
        return {name: round(seconds * 1000, 2) for name, seconds in latency._asdict().items()}

    return {
        "ok": report.ok,
        "turns": report.turns,
        "answered": report.answered,
        "failed": report.failed,
        "unanswered": report.unanswered,
        "seconds": round(report.seconds, 3),
        "accepted_per_second": round(report.turns / report.offering, 1) if report.offering else None,
        "done_per_second": round(report.answered / report.seconds, 1) if report.seconds else None,
        "acceptance_ms": ms(report.acceptance),
        "reply_ms": ms(report.latency),
        "violations": report.verdict.violations,
    }


def _print(report: ReplayReport, figures: dict[str, Any]) -> None:
    console = out()
    console.print(
        f"accepted  {figures['accepted_per_second']:>8,.1f}/s{_in_words(figures['acceptance_ms'])}\n"
        f"done      {figures['done_per_second']:>8,.1f}/s{_in_words(figures['reply_ms'])}, after acceptance"
    )
    if report.failed:
        console.print(f"{report.failed} turns were recorded as failed", style="yellow")
    if report.unanswered:
        console.print(f"{report.unanswered} turns had no result in time", style="red")
    print_verdict(console, report)


def _in_words(ms: dict[str, float] | None) -> str:
    if ms is None:
        return ""
    return f"   p50 {ms['p50']:,.0f} ms, p95 {ms['p95']:,.0f} ms, p99 {ms['p99']:,.0f} ms"
