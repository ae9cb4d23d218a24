"""Lab: servers, one worker of one peer, and what a run of it came to."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from redis import Redis

from benchmarks.peers import work
from benchmarks.peers.processes import cpu_seconds, machine_seconds, resident_mb
from benchmarks.peers.roster import Peer
from benchmarks.peers.verdict import Verdict, judge
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.valkey import EmbeddedValkey
from tests.nodes import ROOT, clean_environment

QUIET_SECONDS = 30.0
"""A run in which so long nothing is committed is over."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one peer; CPU in ms per turn: of the worker's processes, of PostgreSQL, of Valkey.

    `foreign` is the part of the machine that others used meanwhile. Per turn, `commands` counts what Valkey
    did, inside of scripts too, `messages` how often a queue was asked for one, `statements` the transactions
    of the table's database. `waiting_bytes` is the memory of Valkey that a turn takes which waits.
    """

    peer: str
    verdict: Verdict
    enqueued_per_second: float
    cpu_ms: float
    database_cpu_ms: float
    redis_cpu_ms: float
    foreign: float
    rss_mb: float
    threads: int
    commands: float
    scripts: float
    messages: float
    waiting_bytes: int
    wal_bytes: float
    statements: float
    timed_out: bool = False

    @property
    def per_second(self) -> float:
        """Turns per second, from the opening of the gate to the last commit."""
        return self.verdict.turns / self.verdict.seconds if self.verdict.seconds else 0.0

    def line(self) -> dict[str, Any]:
        """For the JSON line."""
        return {**asdict(self), "per_second": round(self.per_second, 1)}


@dataclass
class Lab:
    """A PostgreSQL with its fsync and a Valkey without a file, as the peers' first figures were taken."""

    directory: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    keep: Path | None = None
    logs: list[Path] = field(default_factory=list)

    def database(self, name: str) -> str:
        """The URL of a database."""
        return self.postgres.url.rpartition("/")[0] + f"/{name}"

    def measure(self, peer: Peer, plan: work.Plan, *, gated: bool = True, limit: float = 150.0) -> Run:
        """Have a worker of the peer run all turns of the plan, and judge what it did.

        They wait when the worker comes, whose slots are filled before the time begins; unless it is `gated`:
        then the time begins with the first turn.
        """
        turns = plan.all()
        self._clean(peer, turns)
        env = self._env(peer, plan)
        if peer.prepares:
            _done(self._step(peer, "setup", env))
        with (
            tempfile.TemporaryDirectory(dir=self.directory) as gate,
            psycopg.connect(self.database("bench"), autocommit=True) as watching,
            Redis.from_url(self.valkey.url) as redis,
        ):
            empty = _memory(redis)
            said = json.loads(_done(self._step(peer, "enqueue", env)).strip().splitlines()[-1])
            waiting_bytes = (_memory(redis) - empty) / len(turns)
            log = (self.keep or self.directory) / f"{peer.name}.log"
            go = Path(gate) / "go"
            if not gated:
                go.touch()
            worker = _start(peer, {**env, "BENCH_GATE": gate}, log)
            try:
                _wait_for_slots(peer, worker, Path(gate), log, wanted=peer.slots if gated else 1)
                redis.config_resetstat()
                wal, statements = _wal(watching), _transactions(watching)
                before, machine = self._spent(worker), machine_seconds()
                began = time.time()
                go.touch()
                watched = _watch(worker, lambda: _count(watching, peer.committed), len(turns), limit)
                spent = [after - first for after, first in zip(self._spent(worker), before, strict=True)]
                busy, total = (after - first for after, first in zip(machine_seconds(), machine, strict=True))
                stats: Any = redis.info("commandstats")
                verdict = judge(watching, peer.rows, turns, began if gated else None)
                written, asked = _wal(watching) - wal, _transactions(watching) - statements
            finally:
                _end(worker)
        calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
        ended = max(1, verdict.turns)
        return Run(
            peer=peer.name,
            verdict=verdict,
            enqueued_per_second=round(said["turns"] / said["seconds"], 1),
            cpu_ms=round(1000 * spent[0] / ended, 3),
            database_cpu_ms=round(1000 * spent[1] / ended, 3),
            redis_cpu_ms=round(1000 * spent[2] / ended, 3),
            foreign=round(max(0.0, busy - sum(spent)) / total, 3),
            rss_mb=round(watched.rss_mb, 1),
            threads=watched.threads,
            commands=round(sum(calls.values()) / ended, 2),
            scripts=round(calls.get("evalsha", 0) / ended, 2),
            messages=round(calls.get("brpop", 0) / ended, 3),
            waiting_bytes=round(waiting_bytes),
            wal_bytes=round(written / ended),
            statements=round(asked / ended, 2),
            timed_out=watched.timed_out,
        )

    def _spent(self, worker: subprocess.Popen[bytes]) -> tuple[float, float, float]:
        assert self.postgres.pid is not None
        return cpu_seconds(worker.pid), cpu_seconds(self.postgres.pid), cpu_seconds(self.valkey.pid)

    def _clean(self, peer: Peer, turns: Sequence[work.Planned]) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            for name in ("bench", "queue"):
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
                connection.execute(f"CREATE DATABASE {name}".encode())
            connection.execute("CHECKPOINT")
        with Redis.from_url(self.valkey.url) as redis:
            redis.flushall()
        if peer.uses_tables:
            with psycopg.connect(self.database("bench"), autocommit=True) as connection:
                _fill(connection, sorted({each.session_id for each in turns}))

    def _env(self, peer: Peer, plan: work.Plan) -> dict[str, str]:
        return {
            **clean_environment(),
            "BENCH_PLAN": json.dumps(plan),
            "BENCH_DATABASE": self.database("bench"),
            "BENCH_QUEUE_DATABASE": self.database("queue"),
            "BENCH_REDIS": self.valkey.url.rpartition("/")[0],
            "DATABASE_URL": self.database("bench"),
            "REDIS_URL": self.valkey.url,
            **peer.env,
        }

    def _step(self, peer: Peer, step: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
        command = [peer.python, "-m", "benchmarks.peers", peer.module, step]
        return subprocess.Popen(command, cwd=ROOT, env=dict(env), stdout=subprocess.PIPE, text=True)


@contextmanager
def lab(keep: Path | None = None) -> Iterator[Lab]:
    """Servers of a benchmark's own. What workers say goes to files in `keep`, if it is given."""
    with tempfile.TemporaryDirectory(prefix="inturn-peers-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # PostgreSQL does not run as root, so it runs as somebody else
        postgres = EmbeddedPostgres(directory / "postgres")
        valkey = EmbeddedValkey(directory / "valkey", appendonly=False)
        with postgres, valkey:
            yield Lab(directory, postgres, valkey, keep)


def _fill(connection: psycopg.Connection[Any], sessions: Sequence[str]) -> None:
    connection.execute(work.SCHEMA)
    with connection.transaction(), connection.cursor() as cursor:
        state = json.dumps(work.first_state())
        with cursor.copy("COPY sessions (id, state, version) FROM STDIN") as copy:
            for session_id in sessions:
                copy.write_row((session_id, state, 0))
        with cursor.copy("COPY messages (session_id, number, role, content) FROM STDIN") as copy:
            for number in range(work.HISTORY // 2):
                for session_id in sessions:
                    for role in ("user", "assistant"):
                        copy.write_row((session_id, -1, role, work.content(role, number)))
    connection.execute("VACUUM ANALYZE")


class _Watched(NamedTuple):
    """What was seen of a worker while it ran: the most memory and threads, and whether it did not end."""

    rss_mb: float
    threads: int
    timed_out: bool


def _done(step: subprocess.Popen[str]) -> str:
    output, _ = step.communicate()
    if step.returncode:
        raise RuntimeError("a step of a peer has failed; the reason stands above")
    return output


def _start(peer: Peer, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            peer.worker,
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _watch(worker: subprocess.Popen[bytes], count: Callable[[], int], wanted: int, limit: float) -> _Watched:
    """Look on until all are committed, or nothing happens any more."""
    began = since = time.monotonic()
    rss, threads, done = 0.0, 0, -1
    while True:
        time.sleep(0.1)
        now, committed = time.monotonic(), count()
        rss, threads = max(rss, resident_mb(worker.pid)), max(threads, _threads(worker.pid))
        if committed >= wanted:
            return _Watched(rss, threads, timed_out=False)
        if committed != done:
            done, since = committed, now
        if now - since > QUIET_SECONDS or now - began > limit or worker.poll() is not None:
            return _Watched(rss, threads, timed_out=True)


def _wait_for_slots(
    peer: Peer, worker: subprocess.Popen[bytes], gate: Path, log: Path, *, wanted: int
) -> None:
    """Until so many slots of the worker have a turn, or no further one comes."""
    began = changed = time.monotonic()
    arrived = 0
    while True:
        time.sleep(0.05)
        now, count = time.monotonic(), len(set(os.listdir(gate)) - {"go"})
        if count != arrived:
            arrived, changed = count, now
        if (count >= wanted and (wanted == 1 or now - changed > 0.5)) or (count and now - changed > 5):
            return
        if worker.poll() is not None or now - began > 120:
            raise RuntimeError(f"{peer.name} took no turn; {log} ends:\n{log.read_text()[-3000:]}")


def _memory(redis: Redis) -> int:
    info: Any = redis.info("memory")
    return int(info["used_memory"])


def _count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _wal(connection: psycopg.Connection[Any]) -> int:
    return _count(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")


def _transactions(connection: psycopg.Connection[Any]) -> int:
    return _count(connection, "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = 'bench'")


def _threads(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


def _end(worker: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(patience)
            if sign == signal.SIGKILL:
                return
