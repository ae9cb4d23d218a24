"""Roster: the peers, how each of them is run, and where its turns are to be seen afterwards."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.nodes import ROOT

PYTHON = str(ROOT / ".cache" / "peers" / "bin" / "python")
"""The peers' own environment; `make bench` makes it."""

_ROWS = """
SELECT m.session_id, m.number, m.began, m.ended, s.version
FROM messages AS m JOIN sessions AS s ON s.id = m.session_id
WHERE m.began IS NOT NULL AND m.role = 'user'
"""
_COMMITTED = "SELECT count(*) / 2 FROM messages WHERE began IS NOT NULL"
_OUR_ROWS = """
SELECT
    u.session_id, left(u.content, 5)::int, extract(epoch FROM u.created_at)::float8,
    extract(epoch FROM a.created_at)::float8, s.version - 1
FROM agent_messages AS u
JOIN agent_messages AS a ON a.session_id = u.session_id AND a.turn_id = u.turn_id AND a.role = 'assistant'
JOIN agent_sessions AS s ON s.id = u.session_id
WHERE u.role = 'user' AND u.turn_id IS NOT NULL
"""
_OUR_COMMITTED = "SELECT count(*) FROM agent_turns"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A queue, its worker with `slots` turns at a time, and whether it says that it keeps order."""

    name: str
    module: str
    worker: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    slots: int = 16
    python: str = PYTHON
    prepares: bool = False
    uses_tables: bool = True
    committed: str = _COMMITTED
    rows: str = _ROWS


def inturn(
    name: str = "inturn", *, pool: str = "threads", slots: int = 16, env: Mapping[str, str] | None = None
) -> Peer:
    """inturn as it is shipped, but for concurrency, and the peers' window of 20 messages and log level."""
    return Peer(
        name=name,
        module="on_inturn",
        worker=[
            *(sys.executable, "-m", "celery", "-A", "worker", "worker", "-P", pool, "-c", str(slots)),
            *("-l", "WARNING"),
        ],
        env={
            "INTURN_AGENT": "benchmarks.peers.on_inturn:agent",
            "INTURN_HISTORY_WINDOW": "20",
            "INTURN_LOG_LEVEL": "WARNING",
            **(env or {}),
        },
        slots=slots,
        python=sys.executable,
        prepares=True,
        uses_tables=False,
        committed=_OUR_COMMITTED,
        rows=_OUR_ROWS,
    )


def _celery(name: str, variant: str, **env: str) -> Peer:
    return Peer(
        name=name,
        module="on_celery",
        worker=[
            *(PYTHON, "-m", "celery", "-A", "benchmarks.peers.on_celery", "worker", "-P", "threads"),
            *("-c", "16", "-l", "WARNING"),
        ],
        env={"BENCH_VARIANT": variant, **env},
    )


def _own(name: str, module: str, **env: str) -> Peer:
    worker = [PYTHON, "-m", "benchmarks.peers", module, "run"]
    return Peer(name=name, module=module, worker=worker, env=env, prepares=True)


PEERS = {
    peer.name: peer
    for peer in (
        inturn(),
        inturn("inturn-one-processor", env={"INTURN_ONE_PROCESSOR": "true"}),
        _celery("celery-unlocked", "unlocked"),
        _celery("celery-unlocked-one-processor", "unlocked", BENCH_PROCESSOR="0"),
        _celery("celery-lock", "lock"),
        _celery("celery-retry", "retry"),
        _own("procrastinate", "on_procrastinate"),
        _own("procrastinate-poll-0.02", "on_procrastinate", BENCH_POLL="0.02"),
        _own("dbos-poll-0.02", "on_dbos", BENCH_POLL="0.02"),
        _own("saq", "on_saq"),
        Peer(
            name="dramatiq",
            module="on_dramatiq",
            worker=[PYTHON, "-m", "dramatiq", "benchmarks.peers.on_dramatiq", "-p", "1", "-t", "16"],
        ),
        Peer(
            name="rq-chain",
            module="on_rq",
            worker=[PYTHON, "-m", "benchmarks.peers", "on_rq", "run"],
            env={"BENCH_CONNECTIONS": "1"},
        ),
    )
}
