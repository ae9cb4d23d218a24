"""What a worker process and a waiting turn weigh: connections and memory, on servers of their own.

Run it with `python -m benchmarks.weighing`; it prints one line of JSON. Megabytes are resident memory, bytes
are those that Valkey counts as used, with all that a turn has there: its mailbox, its session's place in the
index, and the broker's message.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from redis import Redis

from benchmarks.fleet import Fleet, fleet
from benchmarks.history import machine
from benchmarks.measuring import journal, peaks
from benchmarks.simulation import quantile
from inturn.client import Client
from inturn.persistence import open_adapter
from inturn.session import create_session
from inturn.session.state import create_message
from tests.waiting import wait_until

SLOTS = 100
TURNS = 2000
TEXT = "I would like to move my appointment to next Tuesday. " * 4


def in_process(made: Fleet, client: Client) -> dict[str, Any]:
    """Connections to Valkey and PostgreSQL and memory of one worker: idle, and with all its slots at work."""
    worker = made.start_worker(concurrency=SLOTS, INTURN_AGENT="benchmarks.occupancy:agent")
    client.respond("warm", "-1 0").get(timeout=120)
    idle = peaks(made, worker.pid)
    handles = [client.respond(f"s{number}", f"{number} 20") for number in range(SLOTS)]
    wait_until(lambda: len(journal(made)) == SLOTS, timeout=120, what="all slots to be at work")
    at_work = peaks(made, worker.pid)
    most = at_work
    while handles[-1].status() != "done":
        now = peaks(made, worker.pid)
        most = max(most[0], now[0]), max(most[1], now[1]), max(most[2], now[2])
        time.sleep(0.05)
    return {"idle": idle, "at_work": at_work, "most": most}


def waiting(made: Fleet, client: Client) -> dict[str, float]:
    """Bytes of Valkey for a turn that waits, in a session of its own and behind others of its session."""
    with Redis.from_url(made.valkey.url) as redis:

        def used() -> int:
            return int(redis.info("memory")["used_memory"])

        before = used()
        for number in range(TURNS):
            client.respond(f"own-{number}", TEXT)
        between = used()
        for number in range(TURNS):
            client.respond(f"of-{number % 4}", TEXT)
        return {"own": (between - before) / TURNS, "behind": (used() - between) / TURNS}


def of_redis(made: Fleet, client: Client) -> dict[str, float]:
    """Milliseconds of Valkey's processor for each turn, and for each second of an idle worker."""
    made.start_worker(concurrency=SLOTS, INTURN_AGENT="benchmarks.occupancy:agent")
    with Redis.from_url(made.valkey.url) as redis:

        def used() -> float:
            cpu = redis.info("cpu")
            return 1000 * float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

        before, began = used(), time.monotonic()
        time.sleep(10)
        idle = (used() - before) / (time.monotonic() - began)
        before, began = used(), time.monotonic()
        handles = [client.respond(f"s{number}", f"{number} 0") for number in range(TURNS)]
        for handle in handles:
            handle.get(timeout=300)
        spent = used() - before - idle * (time.monotonic() - began)
        return {"turn": spent / TURNS, "idle": idle}


def of_database(made: Fleet) -> float:
    """Milliseconds that a turn's load and commit have a connection to PostgreSQL, together; the median."""
    took = []
    with open_adapter(made.database_url) as adapter:
        adapter.initialize()
        for _ in range(200):
            session = create_session(agent_name="bench")
            said = [create_message(session.id, "user", TEXT), create_message(session.id, "assistant", TEXT)]
            began = time.perf_counter()
            adapter.load(session.id, last_messages=50)
            adapter.commit(session, said, expected_version=0)
            took.append(1000 * (time.perf_counter() - began))
    return quantile(took, 0.5)


def main() -> int:
    """Print all of it."""
    with fleet() as made, Client(made.settings) as client:
        turn = waiting(made, client)
        database = of_database(made)
    with fleet() as made, Client(made.settings) as client:
        process = in_process(made, client)
    with fleet() as made, Client(made.settings) as client:
        redis = of_redis(made, client)
    found = {"turn": turn, "process": process, "redis": redis, "database": database}
    print(json.dumps({"machine": machine(), "results": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
