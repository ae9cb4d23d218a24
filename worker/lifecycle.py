"""Celery's signals: where a process's runtime begins and ends, for each kind of pool."""

from __future__ import annotations

from typing import Any

import structlog
from celery import signals

from inturn.agent.loading import load_agent
from inturn.audit import set_actor
from inturn.channels import list_channels, load_channels
from inturn.errors import InturnError
from inturn.logs import configure_logging
from inturn.persistence.opening import open_store
from inturn.turns.transport import is_rabbitmq

from .celery import settings
from .config import GEVENT_PREFETCH
from .runtime import close_runtime, current_runtime, stopping

log = structlog.get_logger(__name__)


@signals.setup_logging.connect
def _configure_logging(**_: Any) -> None:
    configure_logging(settings)


@signals.celeryd_init.connect
def _name_ourselves(sender: str = "", **_: Any) -> None:
    # For the audit log; pool processes, forked later, are called the same.
    set_actor(f"worker:{sender}")


@signals.celeryd_init.connect
def _check_settings(**_: Any) -> None:
    # A worker that cannot answer must not start: it would take turns and fail them one by one.
    try:
        load_agent(settings.agent)
        load_channels(settings)
        open_store(settings).close()
    except InturnError as error:
        raise SystemExit(f"inturn: {error}") from None


@signals.celeryd_init.connect
def _note_options(conf: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    options = options or {}
    if str(options.get("pool", "")) in ("gevent", "eventlet") and not is_rabbitmq(settings.broker):
        conf.worker_prefetch_multiplier = GEVENT_PREFETCH
    # `-E` is known to the main process only; pool processes, forked later, see it here.
    conf.worker_send_task_events = conf.worker_send_task_events or bool(options.get("task_events"))


@signals.worker_process_init.connect
def _start_in_pool_process(**_: Any) -> None:
    # prefork (after the fork: a parent's threads and connections do not survive one) and solo.
    current_runtime()


@signals.worker_ready.connect
def _start_in_main_process(sender: Any = None, **_: Any) -> None:
    # Threads and gevent work in this process; a prefork parent must hold nothing and renew nothing.
    if type(sender.pool).__module__ != "celery.concurrency.prefork":
        current_runtime().results.consumer = sender
    pool = type(sender.pool).__module__.rpartition(".")[2]
    log.info("worker ready", pool=pool, channels=list_channels(load_channels(settings)))


@signals.worker_shutting_down.connect
def _hand_over(**_: Any) -> None:
    stopping.set()


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    close_runtime()
