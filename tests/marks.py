"""A word that is planted wherever somebody's words can be, and the search for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from redis import Redis
from sqlalchemy import MetaData, create_engine, select

MARK = "xylophone"


def in_store(url: str) -> str:
    """All tables with all that is in them."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {
            name: [tuple(row) for row in connection.execute(select(table))]
            for name, table in tables.tables.items()
        }
    engine.dispose()
    return repr(found)


def in_redis(url: str) -> str:
    """All keys with all that is in them, and what is in the bodies of messages."""
    with Redis.from_url(url, decode_responses=True) as client:
        found: list[Any] = []
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            if kind == "string":
                value: Any = client.get(key)
            elif kind == "list":
                value = client.lrange(key, 0, -1)
            elif kind == "hash":
                value = client.hgetall(key)
            elif kind == "zset":
                value = client.zrange(key, 0, -1, withscores=True)
            elif kind == "set":
                value = client.smembers(key)
            elif kind == "stream":
                value = client.xrange(key)
            else:
                continue  # it went meanwhile
            found.append((key, value))
    return repr(found) + " ".join(_bodies(found))


def _bodies(found: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for _, value in found:
        for text in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            try:
                message = json.loads(text)
                body = (message[0] if isinstance(message, list) else message)["body"]
                yield base64.b64decode(body).decode()
            except (ValueError, KeyError, TypeError, IndexError):
                continue


def in_flower(client: httpx.Client) -> str:
    tasks = client.get("/api/tasks?limit=1000").json()
    pages = ["/api/tasks", "/api/workers", "/tasks", "/metrics"]
    pages += [f"/api/task/info/{task}" for task in tasks] + [f"/task/{task}" for task in tasks]
    return json.dumps(tasks) + "".join(client.get(page).text for page in pages)


def in_logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))
