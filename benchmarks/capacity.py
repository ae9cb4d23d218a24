"""How many workers does a load want, and what do they want of Redis and PostgreSQL?

    python -m benchmarks.capacity --turns-per-second 50 --model-seconds 8

The formula: slots are the servers of an M/G/c queue (Erlang's C, with the corrections of Allen and Cunneen
for how much arrivals and turns vary, and of Hayward for bursts), and each session is an M/G/1 queue whose
first turn of a busy time also waits for a slot (Welch). `benchmarks.simulation` has the same rules event by
event, and `benchmarks.measuring` holds both against real workers; docs/explanation/scale.md says how well
they agree.

Figures in capitals were measured; replace them by those of your own machines: `python -m
benchmarks.weighing`, and the figures of `benchmarks.measuring` for each turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

CPU_SECONDS = 0.009
"""Of the worker's processor for each turn, without what the agent's own code takes."""
OVERHEAD_SECONDS = 0.030
"""How long each turn takes a slot beside its model: Redis, database, and Python."""
DATABASE_SECONDS = 0.0055
"""How long each turn has a connection to the database: a load and a commit, to a disk that does not wait."""
STATEMENTS = 2
"""For each turn: a load and a commit; the first of a session has a load more."""
REDIS_COMMANDS = 75
"""For each turn, with those inside scripts, and with the broker and the results in the same Redis."""
IDLE_COMMANDS = 160
"""A second, of a worker process that does nothing: its sweepers look."""
REDIS_SECONDS = 0.0007
"""Of Redis' own processor for each turn."""
IDLE_REDIS_SECONDS = 0.0007
"""The same for each second of a worker process that does nothing."""
REDIS_CONNECTIONS = 20
"""Of one worker process, however many slots it has; fewer where turns end one after the other."""
WAITING_KILOBYTES = 2.0
"""Of Redis, for a turn of 200 characters that waits or runs, in a session of its own."""
PROCESS_MEGABYTES = 105
SLOT_MEGABYTES = 0.15
"""Of a thread that is at work, with its turn."""
DATABASE_POOL = 16
"""As `INTURN_DATABASE_POOL`."""
MOST_CPU = 0.7
"""The share of one processor at which a process counts as full: Python runs on one at a time."""
SLOTS = 100
"""As the Procfile starts a worker."""


@dataclass(frozen=True)
class Load:
    """What comes in. Seconds throughout.

    A model takes `model_seconds` on average, lognormal, with the standard deviation `variation` times that.
    `gap_seconds` is the time between two messages of one session, on average; `burst` how many messages of
    different sessions come at once. `cpu_seconds` are of the agent's own code for each turn.
    """

    turns_per_second: float
    model_seconds: float
    variation: float = 0.8
    gap_seconds: float = 60.0
    burst: float = 1.0
    cpu_seconds: float = 0.0

    @property
    def sessions(self) -> int:
        """How many are active at a time."""
        return max(1, round(self.turns_per_second * self.gap_seconds))


@dataclass(frozen=True)
class Plan:
    """What a load means for so many workers. Shares are of 1, waits in seconds from acceptance to begin.

    `wait_slot` is the mean wait for a slot of turns that find their session idle, `must_wait` the share of
    them that do wait, `behind` the share of all turns that find it busy. Waits are infinite where more comes
    in than is done.
    """

    workers: int
    slots: int
    utilisation: float
    cpu: float
    wait_mean: float
    wait_p50: float
    wait_p99: float
    wait_slot: float
    must_wait: float
    behind: float
    in_flight: float
    waiting: float
    redis_connections: int
    redis_commands: float
    redis_cpu: float
    redis_megabytes: float
    database_connections: int
    database_busy: float
    database_statements: float
    worker_megabytes: float


def plan(load: Load, *, workers: int, slots: int, overhead: float = OVERHEAD_SECONDS) -> Plan:
    """What becomes of the load with so many worker processes of so many slots each."""
    servers = workers * slots
    cpu = load.turns_per_second * (CPU_SECONDS + load.cpu_seconds) / workers
    stretch = (CPU_SECONDS + load.cpu_seconds) * min(cpu, 0.99) / (1 - min(cpu, 0.99))
    mean = load.model_seconds + overhead + load.cpu_seconds + stretch
    deviation = load.variation * load.model_seconds
    second = mean**2 + deviation**2
    offered = load.turns_per_second * mean
    if offered >= servers or mean >= load.gap_seconds or cpu >= 1:
        found = _Waits(math.inf, math.inf, math.inf, math.inf, 1.0, 1.0)
    else:
        found = _waits(load, servers, mean, deviation, second)
    waiting = load.turns_per_second * found.mean
    return Plan(
        workers=workers,
        slots=slots,
        utilisation=offered / servers,
        cpu=cpu,
        wait_mean=found.mean,
        wait_p50=found.p50,
        wait_p99=found.p99,
        wait_slot=found.slot,
        must_wait=found.must_wait,
        behind=found.behind,
        in_flight=min(offered, servers),
        waiting=waiting,
        redis_connections=workers * REDIS_CONNECTIONS,
        redis_commands=load.turns_per_second * REDIS_COMMANDS + workers * IDLE_COMMANDS,
        redis_cpu=load.turns_per_second * REDIS_SECONDS + workers * IDLE_REDIS_SECONDS,
        redis_megabytes=(offered + waiting) * WAITING_KILOBYTES / 1000,
        database_connections=workers * min(DATABASE_POOL, slots),
        database_busy=load.turns_per_second * DATABASE_SECONDS,
        database_statements=load.turns_per_second * STATEMENTS,
        worker_megabytes=PROCESS_MEGABYTES + SLOT_MEGABYTES * min(offered / workers, slots),
    )


def size(load: Load, *, slots: int, wait_p99: float) -> Plan:
    """The fewest workers with which 99 of 100 turns that find their session idle wait no longer for a slot.

    What a turn waits behind another of its own session no worker can shorten, so it does not count here.
    """
    workers = max(
        1,
        math.ceil(load.turns_per_second * (CPU_SECONDS + load.cpu_seconds) / MOST_CPU),
        math.ceil(load.turns_per_second * load.model_seconds / slots),
    )
    while True:
        made = plan(load, workers=workers, slots=slots)
        if made.utilisation < 1:
            slot = _quantile([(made.must_wait, made.wait_slot / (made.must_wait or 1))], 0.99)
            if slot <= wait_p99:
                return made
        workers += 1


@dataclass(frozen=True)
class _Waits:
    mean: float
    p50: float
    p99: float
    slot: float
    must_wait: float
    behind: float


def _waits(load: Load, servers: int, mean: float, deviation: float, second: float) -> _Waits:
    offered = load.turns_per_second * mean
    # Hayward: where turns come in bursts, so many servers do as a share of them would without. The share is
    # the peakedness of the arrivals, by how long the shorter of two turns of one burst takes, on average.
    shorter = math.erfc(math.sqrt(math.log1p((deviation / mean) ** 2)) / 2)
    peaked = 1 + 2 * (load.burst - 1) * shorter
    must_wait = erlang_c(servers / peaked, offered / peaked)
    varies = (2 * load.burst - 1 + (deviation / mean) ** 2) / 2
    slot = must_wait * mean / (servers - offered) * varies
    # Welch: a turn behind others of its session, the first of which takes as long as it waits for a slot, and
    # its own time.
    rate = 1 / load.gap_seconds
    more = 2 * slot**2 / must_wait + 2 * slot * mean if must_wait else 0.0
    behind_wait = rate * second / (2 * (1 - rate * mean)) + rate * more / (2 * (1 + rate * slot))
    idle = (1 - rate * mean) / (1 + rate * slot)
    parts = [(1 - idle, behind_wait / (1 - idle))]
    if must_wait:
        parts.append((idle * must_wait, slot / must_wait))
    return _Waits(
        behind_wait + idle * slot, _quantile(parts, 0.5), _quantile(parts, 0.99), slot, must_wait, 1 - idle
    )


def erlang_c(servers: float, offered: float) -> float:
    """The share of arrivals that find all servers busy; `offered` is arrivals a second times seconds each.

    Parts of a server are allowed.
    """
    # 1 over the share that would be turned away if nobody waited, by steps of one server.
    turned = 1.0
    start = servers - math.floor(servers)
    if start:
        turned = 1 / _turned_away(start, offered)
    number = start
    while number + 0.5 < servers:
        number += 1
        turned = 1 + turned * number / offered
    blocked = 1 / turned
    return blocked / (1 - offered / servers * (1 - blocked))


def _turned_away(servers: float, offered: float) -> float:
    """The share that less than one server turns away: between that of none, all, and that of one."""
    return math.pow(offered / (1 + offered), servers)


def _quantile(parts: Sequence[tuple[float, float]], share: float) -> float:
    """Of waits that are 0, or exponential: each part with its share of all, and its mean."""

    def longer(than: float) -> float:
        return sum(weight * math.exp(-than / mean) for weight, mean in parts if weight and mean)

    low, high = 0.0, 1.0
    if longer(0.0) <= 1 - share:
        return 0.0
    while longer(high) > 1 - share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if longer(middle) > 1 - share else (low, middle)
    return high


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a plan; the exit code is 1 where the workers that are named cannot bear the load."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--turns-per-second", type=float, required=True)
    add("--model-seconds", type=float, required=True, help="all calls of the model of one turn, on average")
    add("--variation", type=float, default=0.8, help="its standard deviation to its mean; 0.8")
    add("--gap-seconds", type=float, default=60.0, help="between two messages of one session; 60")
    add("--burst", type=float, default=1.0, help="messages of different sessions that come at once; 1")
    add("--cpu-seconds", type=float, default=0.0, help="of the agent's own code for each turn; 0")
    add("--slots", type=int, default=SLOTS, help=f"turns at once in one worker; {SLOTS}")
    add("--workers", type=int, help="so many, instead of as many as are wanted")
    add("--wait", type=float, default=1.0, help="seconds for a slot that 99 of 100 turns may wait; 1")
    add("--json", action="store_true", help="one line of JSON")
    given = parser.parse_args(arguments)
    load = Load(
        given.turns_per_second,
        given.model_seconds,
        given.variation,
        given.gap_seconds,
        given.burst,
        given.cpu_seconds,
    )
    if given.workers is None:
        made = size(load, slots=given.slots, wait_p99=given.wait)
    else:
        made = plan(load, workers=given.workers, slots=given.slots)
    print(json.dumps(dataclasses.asdict(made)) if given.json else _told(load, made))
    return 0 if math.isfinite(made.wait_mean) else 1


def _told(load: Load, made: Plan) -> str:
    rows = {
        "workers": f"{made.workers} processes of {made.slots} slots",
        "slots": f"{made.utilisation:.0%} in use; {made.in_flight:.0f} turns at work",
        "processor": f"{made.cpu:.0%} of one in each worker; Python uses one at a time",
        "memory": f"{made.worker_megabytes:.0f} MB each worker",
        "wait for a slot": f"{made.wait_slot:.2f} s on average",
        "behind its own": f"{made.behind:.1%} of turns find one of {load.sessions} sessions busy",
        "wait in all": f"{made.wait_mean:.2f} s mean, {made.wait_p50:.2f} s median, "
        f"{made.wait_p99:.2f} s p99",
        "waiting": f"{made.waiting:.0f} turns",
        "Redis": f"{made.redis_commands:.0f} commands/s, {made.redis_cpu:.0%} of its processor, "
        f"{made.redis_connections} connections, {made.redis_megabytes:.1f} MB for turns",
        "PostgreSQL": f"{made.database_statements:.0f} statements/s, "
        f"{made.database_busy:.1f} busy of at most {made.database_connections} connections",
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:{width}}{text}" for name, text in rows.items())


if __name__ == "__main__":
    sys.exit(main())
