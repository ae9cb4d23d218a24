"""`inturn doctor`: what works, what does not, and how to mend it."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr
from rich.markup import escape
from rich.table import Table

from inturn.accepting import open_inbox
from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import out, print_json, print_table, spinner
from inturn.cli.processes import application
from inturn.contract import DELIVERY_QUEUE, MAINTENANCE_QUEUE, TURNS_QUEUE
from inturn.errors import ConfigurationError, InturnError, MailboxError, MissingDriverError, StoreError
from inturn.ids import create_session_id
from inturn.persistence import PersistenceAdapter, Target
from inturn.persistence.opening import open_store
from inturn.session import create_session
from inturn.session.state import create_message
from inturn.settings import Settings
from inturn.turns.connection import connect, redis_errors
from inturn.turns.transport import declare_queues, is_rabbitmq, publisher_options

Status = Literal["ok", "warning", "failed", "skipped"]

OLDEST_REDIS = (6, 2)
CLOCK_SECONDS = 2.0
"""A larger difference between this machine's clock and that of Redis is a warning."""
PING_SECONDS = 1.5
"""How long workers may take to answer."""

_COLOURS: dict[Status, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and what to do unless it is `ok`."""

    name: str
    status: Status
    found: str
    mend: str = ""


def run_doctor(*, as_json: bool) -> int:
    """Check all parts and print what was found. Returns the exit code: 1 if a check failed."""
    logging.disable()  # drivers log each attempt; what matters is in the checks
    try:
        with spinner("examining"):
            checks = list(examine())
    finally:
        logging.disable(logging.NOTSET)
    ok = all(check.status != "failed" for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks, ok=ok)
    return DONE if ok else FAILED


def examine() -> Iterator[Check]:
    """Look at each part in turn; a part that needs one that failed is skipped."""
    try:
        settings = local_settings()
    except ConfigurationError as error:
        yield Check(
            "settings", "failed", str(error), "set the variables named; docs/settings.md has them all"
        )
        return
    yield Check("settings", "ok", f"{len(settings.model_fields_set)} set, the others at their defaults")
    yield from _redis(settings)
    queues = yield from _broker(settings)
    yield from _store(settings)
    yield _agent(settings)
    yield from _channels(settings, queues)


def _redis(settings: Settings) -> Iterator[Check]:
    place = _place(settings.redis_url)
    try:
        with connect(settings) as client, redis_errors():
            info: dict[str, Any] = client.info()
            before = time.time()
            seconds, microseconds = client.time()
            after = time.time()
    except (ConfigurationError, MailboxError) as error:
        mend = "start Redis there (`inturn dev` brings its own), or set REDIS_URL to one that runs"
        yield Check("redis", "failed", f"{place}: {error.__cause__ or error}", mend)
        yield Check("clock", "skipped", "needs Redis")
        return
    yield _version(place, info)
    yield _memory(info)
    yield _durability(info, settings)
    behind = seconds + microseconds / 1e6 - (before + after) / 2
    differs = abs(behind) - (after - before) / 2 > CLOCK_SECONDS
    yield Check(
        "clock",
        "warning" if differs else "ok",
        f"Redis is {abs(behind):.3f} s {'ahead of' if behind > 0 else 'behind'} this machine",
        "set both clocks by NTP: times in sessions are those of the machine that wrote them"
        if differs
        else "",
    )


def _version(place: str, info: dict[str, Any]) -> Check:
    version = str(info["redis_version"])
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    old = tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS
    oldest = ".".join(map(str, OLDEST_REDIS))
    return Check(
        "redis", "failed" if old else "ok", f"{name} at {place}", f"use {oldest} or later" if old else ""
    )


def _memory(info: dict[str, Any]) -> Check:
    policy, limit = info.get("maxmemory_policy", "unknown"), info.get("maxmemory", 0)
    found = f"maxmemory-policy {policy}, maxmemory {limit or 'without limit'}"
    if policy == "noeviction":
        return Check("redis memory", "ok", found)
    return Check(
        "redis memory",
        "failed" if limit else "warning",
        f"{found}: {'a full Redis would throw' if limit else 'with a limit it would throw'} mailboxes away",
        "set maxmemory-policy to noeviction: a full Redis then refuses, and producers know",
    )


def _durability(info: dict[str, Any], settings: Settings) -> Check:
    if settings.inbox == "database":
        return Check("redis durability", "ok", "turns that wait are in the database as well")
    if info.get("aof_enabled"):
        return Check("redis durability", "ok", "appendonly yes")
    return Check(
        "redis durability",
        "warning",
        "appendonly no: a crash of Redis loses turns that were accepted and wait",
        "set appendonly to yes, with appendfsync everysec, or INTURN_INBOX=database",
    )


def _broker(settings: Settings) -> Generator[Check, None, set[str] | None]:
    """Gives the queues that workers take; None: nobody can be asked."""
    from amqp.exceptions import PreconditionFailed
    from celery import Celery
    from kombu.exceptions import OperationalError

    app = Celery("inturn-doctor", broker=settings.broker, set_as_current=False)
    app.conf.update(
        broker_transport_options=publisher_options(settings.broker),
        broker_connection_timeout=2,
    )
    place = _place(SecretStr(settings.broker))
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            if is_rabbitmq(settings.broker):
                declare_queues(connection, settings.broker)
    except PreconditionFailed as error:
        mend = "stop who uses that queue, delete it, and start a worker, which makes it as it must be"
        yield Check("broker", "failed", f"{place}: {error}", mend)
        yield Check("worker", "skipped", "needs the broker")
        return None
    except Exception as error:
        # Whatever the transport is; only words about connections are sure to hold no password.
        said = f": {error}" if isinstance(error, OSError | OperationalError) else ""
        mend = "start the broker there, or set INTURN_BROKER_URL (REDIS_URL without it) to one that runs"
        yield Check("broker", "failed", f"{place}: {type(error).__name__}{said}", mend)
        yield Check("worker", "skipped", "needs the broker")
        return None
    yield Check("broker", "ok", place)
    answers = app.control.inspect(timeout=PING_SECONDS).active_queues() or {}
    taken = {name: {queue["name"] for queue in queues} for name, queues in answers.items()}
    yield _worker(taken)
    queues = set().union(*taken.values())
    if TURNS_QUEUE in queues:
        yield _maintenance(queues)
    return queues


def _maintenance(queues: set[str]) -> Check:
    if MAINTENANCE_QUEUE in queues:
        return Check("maintenance", "ok", f"a worker takes the queue {MAINTENANCE_QUEUE}")
    found = "no worker applies retention, rotates keys or erases users"
    command = f"celery -A {application('worker')} worker -Q {MAINTENANCE_QUEUE} -P threads"
    return Check("maintenance", "warning", found, f"start a worker that takes the queue: {command}")


def _worker(answers: dict[str, set[str]]) -> Check:
    driving = [name for name, queues in answers.items() if TURNS_QUEUE in queues]
    if driving:
        return Check("worker", "ok", f"{len(driving)} answered: {', '.join(sorted(driving))}")
    found = f"none answered within {PING_SECONDS:g} s"
    if answers:
        found = f"{', '.join(sorted(answers))} answered, and takes no turns"
    mend = (
        f"start one that takes the queue {TURNS_QUEUE}: celery -A {application('worker')} worker -P threads"
    )
    return Check("worker", "failed", found, mend)


def _store(settings: Settings) -> Iterator[Check]:
    place = _place(settings.database_url)
    try:
        adapter = open_store(settings)
    except MissingDriverError as error:
        yield Check("store", "failed", str(error), "install what it names, in the environment of the worker")
        return
    except ConfigurationError as error:
        yield Check(
            "store", "failed", str(error), "set what it names; DATABASE_URL is a URL that open_adapter takes"
        )
        return
    with contextlib.closing(adapter):
        try:
            adapter.ping()
        except StoreError as error:
            mend = "start the database there, or set DATABASE_URL to one that runs"
            yield Check("store", "failed", f"{place}: {error}", mend)
            return
        if not adapter.durable:
            mend = "set DATABASE_URL to sqlite:///..., postgresql://... or another store that lasts"
            found = "each process has a store of its own, which ends with it"
            yield Check("store", "warning", found, mend)
            return
        yield Check("store", "ok", place)
        try:
            adapter.load(create_session_id(), last_messages=1)
        except StoreError as error:
            mend = "run inturn db upgrade, or start a worker, which creates what is missing"
            yield Check("schema", "failed", str(error), mend)
            return
        yield Check("schema", "ok", "it is there")
        yield _round_trip(adapter)
    if settings.inbox == "database":
        yield _inbox(settings)


def _inbox(settings: Settings) -> Check:
    try:
        inbox = open_inbox(settings)
        assert inbox is not None
        with contextlib.closing(inbox):
            waiting = inbox.total()
    except (ConfigurationError, MissingDriverError, StoreError) as error:
        mend = (
            "set INTURN_INBOX_URL to a SQL database that runs, and let its user create the table agent_inbox"
        )
        return Check("inbox", "failed", str(error), f"{mend}, or run inturn db upgrade as one who may")
    return Check("inbox", "ok", f"in the database; {waiting} turns have not ended")


def _round_trip(adapter: PersistenceAdapter) -> Check:
    """Commit a session with a message, read it back and delete it."""
    session = create_session(agent_name="inturn doctor")
    started = time.monotonic()
    try:
        try:
            note = create_message(session.id, "system", "a check by inturn doctor")
            written = adapter.commit(session, [note], expected_version=0)
            found = adapter.load(session.id, last_messages=1)
        finally:
            adapter.delete_sessions([Target(session.id)])
    except InturnError as error:
        mend = "give the database's user the rights to read, insert, update and delete; then see the error"
        return Check("round trip", "failed", str(error), mend)
    if found is None or (found.session, found.messages) != (written.session, written.messages):
        mend = "look for whatever else writes to these tables, or stands between"
        return Check("round trip", "failed", "what was written was not what was read", mend)
    ms = (time.monotonic() - started) * 1000
    return Check("round trip", "ok", f"wrote, read and deleted a session in {ms:.0f} ms")


def _agent(settings: Settings) -> Check:
    from inturn.agent.loading import load_agent

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a user's module prints is no part of the report
            agent = load_agent(settings.agent)
    except ConfigurationError as error:
        return Check("agent", "failed", str(error), "set INTURN_AGENT to package.module:name")
    except Exception as error:
        found = f"{settings.agent} raises {type(error).__name__} while it is imported: {error}"
        return Check(
            "agent", "failed", found, "mend the module; python -c 'import ...' shows where it raises"
        )
    return Check("agent", "ok", f"{settings.agent} is {agent.name!r}")


def _channels(settings: Settings, queues: set[str] | None) -> Iterator[Check]:
    """Nothing is said where no channel is set up."""
    from inturn.channels import load_channels

    try:
        with contextlib.redirect_stdout(sys.stderr):
            channels = load_channels(settings)
    except ConfigurationError as error:
        yield Check(
            "channels", "failed", str(error), "set or install what it names, for workers and web alike"
        )
        return
    if not channels:
        return
    yield Check("channels", "ok", ", ".join(sorted(channels)))
    if queues is None:
        yield Check("delivery", "skipped", "needs the broker")
    elif DELIVERY_QUEUE in queues:
        yield Check("delivery", "ok", f"a worker takes the queue {DELIVERY_QUEUE}")
    else:
        command = f"celery -A {application('worker')} worker -Q {DELIVERY_QUEUE} -P threads"
        mend = f"start a worker that takes the queue: {command}"
        yield Check("delivery", "failed", "no worker sends replies: they wait", mend)


def _place(url: SecretStr) -> str:
    """Where a URL leads, without its user, its password and its parameters; of several, the first."""
    try:
        parts = urlsplit(url.get_secret_value().partition(";")[0])
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a URL that cannot be read"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _print(checks: list[Check], *, ok: bool) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        colour = _COLOURS[check.status]
        found = escape(check.found) + (f"\n[bold]mend:[/] {escape(check.mend)}" if check.mend else "")
        table.add_row(f"[{colour}]{check.status}[/]", check.name, found)
    print_table(table)
    failed = sum(check.status == "failed" for check in checks)
    warnings = sum(check.status == "warning" for check in checks)
    said = "all is well" if ok else f"{failed} failed"
    out().print(
        f"{said}, {warnings} to look at" if warnings else said, style="bold green" if ok else "bold red"
    )
