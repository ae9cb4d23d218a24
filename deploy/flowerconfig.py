"""Flower's settings; what stands here wins over FLOWER_... in the environment, so port and passwords do not.

Whoever can open Flower can see whose turns ran when, and stop workers. So

- FLOWER_BASIC_AUTH=name:password closes all of it but /healthcheck and what a browser needs for the pages; a
  file of that name in INTURN_SECRETS_DIR does the same;
- without it only somebody on this machine sees pages, and nobody its API or its metrics. Where Flower listens
  for others too, it makes up a password and says it on standard error;
- FLOWER_READ_ONLY=true takes everything away that changes anything;
- nobody can read in it what was said: replies are results, and Flower is given no result backend.

FLOWER_DB=/path/of/a/file keeps what it has seen over a restart: IDs, states and times.
"""

import ipaddress
import secrets
import sys
from pathlib import Path

from celery import current_app
from flower.events import EventsState
from flower.options import options
from flower.views.monitor import Metrics
from kombu.transport.redis import QoS
from tornado.web import HTTPError, authenticated

from inturn.settings import load_settings

# A task here is a wake-up of a session; ten thousand are enough to look back on.
max_tasks = 10_000
purge_offline_workers = 300
natural_time = True
tasks_columns = "name,uuid,state,kwargs,received,runtime,worker"

persistent = options.db != "flower"  # that is the default: a file where it happens to run
state_save_interval = 30_000


def _is_for_this_machine(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name, or nothing, which means all addresses


def _closed(_: Metrics) -> None:
    if not (options.basic_auth or options.auth):
        raise HTTPError(401)


def _password_file() -> Path | None:
    folder = load_settings().secrets_dir
    found = folder and folder / "FLOWER_BASIC_AUTH"
    return found if found and found.is_file() else None


if not (options.basic_auth or options.auth) and (file := _password_file()):
    basic_auth = file.read_text().strip().split(",")
elif not (options.basic_auth or options.auth) and not _is_for_this_machine(options.address):
    password = secrets.token_urlsafe(24)
    basic_auth = [f"inturn:{password}"]
    sys.stderr.write(f"flower: no FLOWER_BASIC_AUTH is set; for now it is inturn:{password}\n")

# Flower itself closes its API to whoever shows nothing, and leaves its metrics open to all.
Metrics.prepare = _closed
Metrics.get = authenticated(Metrics.get)

# A result holds a reply, and its API would show it: it answers 503 instead.
current_app.conf.result_backend = "disabled://"

_event = EventsState.event


def _without_arguments(state: EventsState, event: dict[str, object]) -> None:
    # Workers tell of sessions only. A program that tells of what it sends (`task_send_sent_event`) says it
    # all, and a bare `send_task` has the message among its arguments.
    if event["type"] == "task-sent":
        event = {name: value for name, value in event.items() if name not in ("args", "kwargs")}
    _event(state, event)


EventsState.event = _without_arguments

# Whoever listens to Redis by way of kombu gives back messages that workers have held for too long. Flower
# only watches, and need not have the right to write to the queues.
QoS.restore_visible = lambda *_, **__: None
