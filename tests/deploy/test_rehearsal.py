"""docker-compose.yml without Docker: its commands, its secrets and its order, with what the image holds.

The secrets are those that deploy/make_secrets.py makes up, and Redis' users have the rights they will have.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import yaml
from psycopg import sql

from inturn.embedded.ports import free_port
from inturn.embedded.valkey import EmbeddedValkey
from tests.deploy.image import listing
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.servers import own_postgres
from tests.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
READY = {
    "web": "Uvicorn running on",
    "worker": "ready.",
    "delivery": "ready.",
    "maintenance": "ready.",
    "beat": "beat: Starting",
    "flower": "Visit me at",
}


class Rehearsal:
    """The services of the file that are ours, as processes of this machine."""

    def __init__(self, built: Path, directory: Path, secrets: Path) -> None:
        self._built = built
        self._directory = directory
        self._secrets = secrets
        self.ports = {"8000": free_port(), "5555": free_port()}
        self.metrics = {name: free_port() for name in ("web", "worker", "delivery", "maintenance", "beat")}
        self.started: dict[str, ProcessContainer] = {}

    def environment(self, name: str) -> dict[str, str]:
        """What the service is told: by variables, and by the files that are mounted for it."""
        service = SERVICES[name]
        mounted = self._directory / "run" / name
        mounted.mkdir(parents=True, exist_ok=True)
        for secret in service["secrets"]:
            source, target = secret.values() if isinstance(secret, dict) else (secret, secret)
            shutil.copy(self._secrets / source, mounted / target)
        data = self._directory / "data" / name
        data.mkdir(parents=True, exist_ok=True)
        told = {
            variable: self._here(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value)))
            for variable, value in service["environment"].items()
            if value is not None
        }
        ours = {key: value for key, value in clean_environment().items() if key != "PYTHONPATH"}
        image = {
            "PYTHONPATH": str(self._built / "app"),
            # The image holds compiled code; here the first process that needs it compiles it.
            "PYTHONPYCACHEPREFIX": str(self._directory / "compiled"),
            "HOME": "/nonexistent",
        }
        if name == "flower":
            told["FLOWER_PORT"] = str(self.ports["5555"])
        if name in self.metrics:
            told["INTURN_METRICS_PORT"] = str(self.metrics[name])
        return {**ours, **image, **told, "INTURN_SECRETS_DIR": str(mounted)}

    def command(self, name: str, words: list[str]) -> list[str]:
        """What the service runs, with the image's Python, in its working folder."""
        python = str(self._built / "opt" / "bin" / "python")
        program, *rest = (self._here(name, word) for word in words)
        # The first lines of programs name the directory in which they were built.
        start = ["-c", "from inturn.cli import main; main()"] if program == "inturn" else ["-m", program]
        start = [] if program == "python" else start
        return ["sh", "-c", 'cd "$0" && exec "$@"', str(self._built / "app"), python, *start, *rest]

    def start(self, name: str, *words: str, **more: str) -> None:
        """Start a service; `ready` says when it is."""
        words = words or tuple(shlex.split(SERVICES[name]["command"]))
        self.started[name] = ProcessContainer(
            name,
            self.command(name, list(words)),
            directory=self._directory / "logs",
            env={**self.environment(name), **more},
            prompt="",
        )
        self.started[name].start()

    def ready(self) -> bool:
        """Whether all that were started have said so."""
        for name, process in self.started.items():
            assert process.status == "running", name
        return all(READY[name] in process.logs().decode() for name, process in self.started.items())

    def run(self, name: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a service."""
        env = self.environment(name)
        return subprocess.run(self.command(name, words), env=env, capture_output=True, text=True, timeout=120)

    def _here(self, name: str, text: str) -> str:
        """Addresses, ports and directories of a container as they are on this machine."""
        text = text.replace("0.0.0.0", "127.0.0.1").replace("/data/", f"{self._directory}/data/{name}/")
        return re.sub(r"\b(8000|5555)\b", lambda port: str(self.ports[port[1]]), text)


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Path]:
    """The secrets, and the servers that know them."""
    folder = tmp_path / "secrets"
    valkey = EmbeddedValkey(tmp_path / "valkey", config={"aclfile": str(folder / "users.acl")})
    with own_postgres(tmp_path) as postgres:
        subprocess.run(
            [
                *(sys.executable, ROOT / "deploy" / "make_secrets.py", "--folder", folder),
                *("--redis", f"127.0.0.1:{valkey.port}", "--postgres", f"127.0.0.1:{postgres.port}"),
            ],
            check=True,
        )
        password = (folder / "POSTGRES_PASSWORD").read_text().strip()
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE inturn LOGIN PASSWORD {}").format(sql.Literal(password)))
            connection.execute("CREATE DATABASE inturn OWNER inturn")
        server = ProcessContainer(
            "valkey", valkey.command, directory=tmp_path / "valkey", prompt="Ready to accept connections"
        )
        try:
            server.start()
            yield folder
        finally:
            server.remove()


@pytest.fixture
def rehearsal(built: Path, tmp_path: Path, secrets: Path) -> Iterator[Rehearsal]:
    rehearsal = Rehearsal(built, tmp_path, secrets)
    yield rehearsal
    for process in rehearsal.started.values():
        process.remove()
        print(f"--- {process.name}\n{process.tail(30)}")


def secret(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


def healthy(rehearsal: Rehearsal, name: str) -> bool:
    """What Docker would say of a service."""
    image = re.search(r'^ *CMD (\["python", "-c".*\])$', (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert image
    test: list[str] = SERVICES[name].get("healthcheck", {}).get("test") or ["CMD", *yaml.safe_load(image[1])]
    # Here all of them have one host, and each the name of a container.
    itself = rehearsal.started[name].attrs["Config"]["Hostname"]
    done = rehearsal.run(name, [itself if word == "self" else word for word in test[1:]])
    print(name, done.returncode, done.stdout, done.stderr[-500:])
    return done.returncode == 0


def erased(answer: httpx.Response) -> bool:
    """Whether an erasure has come to its end; 503 says not yet, as on a machine that is slow."""
    print("erasure", answer.status_code, answer.text)
    return bool(answer.json().get("finished"))


def test_everything_starts_works_and_ends_in_order(rehearsal: Rehearsal, secrets: Path, built: Path) -> None:
    migrated = rehearsal.run("migrate", SERVICES["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    image = re.search(r"^CMD (.*)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert image
    rehearsal.start("web", *yaml.safe_load(image[1]))
    for name in ("flower", "worker", "delivery", "maintenance"):
        rehearsal.start(name)
    rehearsal.start("beat", INTURN_CLEANUP_SECONDS="2")
    wait_until(rehearsal.ready, timeout=120)

    key = {"Authorization": f"Bearer {secret(secrets, 'INTURN_API_KEYS').partition(':')[2]}"}
    web = httpx.Client(base_url=f"http://127.0.0.1:{rehearsal.ports['8000']}", timeout=90)
    flower = httpx.Client(base_url=f"http://127.0.0.1:{rehearsal.ports['5555']}", timeout=60)
    with web, flower:
        assert web.post("/sessions/s/turns", json={"message": "hello"}).status_code == 401
        wanted = {**key, "Prefer": "wait=60"}
        body = {"message": "hello", "user_id": "ann"}
        turn = web.post("/sessions/s/turns", json=body, headers=wanted).json()
        assert turn["reply"]["message"]

        for name in ("web", "flower", "worker", "maintenance"):
            wait_until(lambda: healthy(rehearsal, name), timeout=120, what=f"{name} to be healthy")  # noqa: B023

        assert flower.get("/api/workers").status_code == 401
        flower.auth = httpx.BasicAuth(*secret(secrets, "FLOWER_BASIC_AUTH").split(":"))
        workers = wait_until(lambda: flower.get("/api/workers?refresh=1").json(), timeout=60)
        assert {name.partition("@")[0] for name in workers} == {"worker", "delivery", "maintenance"}
        wait_until(lambda: "SUCCESS" in repr(flower.get("/api/tasks").json().values()), timeout=60)
        # Beat asks for retention, and a worker does it.
        wait_until(lambda: "cleanup_sessions" in flower.get("/api/tasks").text, timeout=90)

        # An erasure takes rights that neither the web process nor a worker of turns has.
        assert web.get("/sessions/s", headers=key).status_code == 200
        wait_until(lambda: erased(web.delete("/users/ann", headers=key)), timeout=120)
        assert web.get("/sessions/s", headers=key).status_code == 404

    for name, port in rehearsal.metrics.items():
        assert "inturn_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text, name
    exported = rehearsal.run("admin", ["inturn", "users", "export", "nobody"])
    assert exported.returncode == 0, exported.stderr

    for process in rehearsal.started.values():
        os.kill(process.pid, signal.SIGTERM)
    for name, process in rehearsal.started.items():
        wait_until(lambda: process.status == "exited", timeout=60, what=f"the end of {name}")  # noqa: B023
    said = {name: process.logs().decode() for name, process in rehearsal.started.items()}
    passwords = {urlsplit(path.read_text()).password for path in secrets.glob("*_URL*")}
    assert len(passwords) == 5
    for name, text in said.items():
        assert "NOPERM" not in text, name
        assert not any(password and password in text for password in passwords), name
    assert listing(built / "app") == (built / "files").read_text()
