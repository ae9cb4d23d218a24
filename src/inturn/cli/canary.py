"""`inturn doctor --canary`: which workers take messages, and not only answer."""

from __future__ import annotations

import json
import secrets
import socket
import time
from typing import Any, Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import local_settings
from inturn.cli.output import out, print_json, print_table
from inturn.contract import CANARY, TURNS_QUEUE, canary_queue
from inturn.errors import MailboxError
from inturn.settings import Settings
from inturn.turns.connection import connect, redis_errors
from inturn.turns.keys import Keys
from inturn.turns.transport import CONFIRM_SECONDS, priority, publisher_options

ASK_SECONDS = 2.0
"""How long workers may take to say what they have in hand."""


class Seen(NamedTuple):
    """What is known of one worker; `ms` until it answered."""

    worker: str
    status: Literal["ok", "busy", "failed"]
    found: str
    ms: int | None = None


def run_canary(worker: str | None, timeout: float, *, as_json: bool) -> int:
    """Send each worker, or the one named, a message to its own queue. Returns 1 if one should have answered.

    `worker` is a node name (`turns@host`), a host's name, or `self`: all of this host. A worker whose slots
    are all taken takes nothing, and that is well. Without `worker` one of them must take turns.
    """
    try:
        seen = look(local_settings(), worker, timeout)
    except Exception as error:
        if not _is_connection_error(error):
            raise
        seen = [Seen(worker or "all", "failed", f"the broker cannot be asked ({type(error).__name__})")]
    ok = bool(seen) and all(each.status != "failed" for each in seen)
    if as_json:
        print_json({"ok": ok, "workers": [each._asdict() for each in seen]})
        return DONE if ok else FAILED
    if not seen:
        out().print("no worker answered", style="bold red")
    table = Table(show_header=False, box=None, pad_edge=False)
    colours = {"ok": "green", "busy": "yellow", "failed": "red"}
    for each in seen:
        table.add_row(f"[{colours[each.status]}]{each.status}[/]", each.worker, escape(each.found))
    print_table(table)
    return DONE if ok else FAILED


def look(settings: Settings, worker: str | None, timeout: float) -> list[Seen]:
    """Look at each of the workers that are asked for. Raises what the broker's connection raises."""
    from celery import Celery

    app = Celery("inturn-canary", broker=settings.broker, set_as_current=False)
    app.conf.update(
        broker_transport_options=publisher_options(settings.broker),
        broker_connection_timeout=2,
        task_publish_retry=False,
    )
    names = [worker] if worker and "@" in worker else sorted(_ask(app, worker))
    if not names:
        return []
    answers = _send(app, settings, names, timeout)
    silent = [name for name in names if name not in answers]
    states = _ask(app, None, silent) if silent else {}
    seen = [_judge(name, answers.get(name), states.get(name), timeout) for name in names]
    if worker is None and not any(
        TURNS_QUEUE in (answers.get(name, (None, []))[1] or states.get(name, {}).get("queues", ()))
        for name in names
    ):
        seen.append(Seen("all", "failed", f"none of them takes the queue {TURNS_QUEUE}"))
    return seen


def _send(app: Any, settings: Settings, names: list[str], timeout: float) -> dict[str, tuple[int, list[str]]]:
    """The workers that answered: after how many milliseconds, and what queues they take."""
    canary_id = secrets.token_hex(8)
    key = Keys(settings.key_prefix).of_canary(canary_id)
    answers: dict[str, tuple[int, list[str]]] = {}
    with connect(settings, connections=1, timeout=timeout + 5.0) as client, redis_errors():
        began = time.monotonic()
        for name in names:
            app.send_task(
                CANARY,
                kwargs={"canary_id": canary_id},
                queue=canary_queue(name),
                priority=priority(settings.broker, urgent=True),
                confirm_timeout=CONFIRM_SECONDS,
                ignore_result=True,
            )
        while len(answers) < len(names) and (left := began + timeout - time.monotonic()) > 0:
            popped: Any = client.blpop([key], timeout=left)
            if popped is not None:
                answer = json.loads(popped[1])
                ms = round((time.monotonic() - began) * 1000)
                answers[answer["worker"]] = (ms, answer["queues"])
    return answers


def _ask(app: Any, host: str | None, names: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """What workers say of themselves, on another way than that of their messages."""
    pattern = None if host is None else f"*@{socket.gethostname() if host == 'self' else host}"
    replies = app.control.broadcast(
        "canary_state",
        reply=True,
        timeout=ASK_SECONDS,
        destination=names,
        limit=len(names) if names else None,
        pattern=pattern,
        matcher="glob" if pattern else None,
    )
    return {name: said for reply in replies or () for name, said in reply.items()}


def _judge(
    name: str, answer: tuple[int, list[str]] | None, state: dict[str, Any] | None, timeout: float
) -> Seen:
    if answer is not None:
        taken = ", ".join(queue for queue in answer[1] if queue != canary_queue(name).name)
        return Seen(name, "ok", f"answered after {answer[0]} ms; takes {taken}", answer[0])
    if state is None:
        return Seen(name, "failed", f"no answer within {timeout:g} s, and it does not say why: restart it")
    if "in_hand" not in state:
        return Seen(name, "failed", "it is of a release that knows no canary")
    if state["in_hand"] >= state["most"] > 0:
        return Seen(name, "busy", f"{state['in_hand']} messages in hand, all slots are taken")
    found = f"it answers, and takes no messages; {state['in_hand']} in hand of {state['most']}: restart it"
    return Seen(name, "failed", found)


def _is_connection_error(error: Exception) -> bool:
    from amqp.exceptions import AMQPError
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    return isinstance(error, OSError | AMQPError | OperationalError | RedisError | MailboxError)
