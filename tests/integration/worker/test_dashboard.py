"""The dashboard and the alerts of deploy/ ask for figures that processes really tell."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from inturn.client import Client
from inturn.embedded.ports import free_port
from tests.channels import SECRET, Receiver, Sent
from tests.figures import Figures, scrape
from tests.integration.worker.conftest import StartWeb, StartWorker
from tests.nodes import ROOT, ProcessContainer, clean_environment
from tests.promql import Asked, legend_labels, taken_apart
from tests.waiting import wait_until
from tests.web import Web

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/inturn.json").read_text())
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
CONFIG = ROOT / "deploy" / "prometheus" / "prometheus.yml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PAGE = (ROOT / "docs" / "observability.md").read_text()
BY_PROMETHEUS = {"job", "instance"}


def queries() -> list[tuple[str, str, str]]:
    """All queries, each with who asks it, and the words that name its labels."""
    of_panels = [
        (panel["title"], target["expr"], target["legendFormat"])
        for panel in PANELS
        for target in panel["targets"]
    ]
    return of_panels + [(rule["alert"], rule["expr"], rule["annotations"]["summary"]) for rule in ALERTS]


class Fleet(NamedTuple):
    """Processes of all kinds, each with the port at which it answers Prometheus."""

    web: Web
    client: Client
    ports: dict[str, int]

    def take_turns(self, number: int) -> None:
        """Some that go well, some that do not, and one of everything that is counted on the way."""
        words = ["hello", "weigh it", "weigh nothing", f"unavailable {number}", "refused"]
        messages = [
            {"id": f"{number}-{place}", "session": f"s{place}", "text": text, "to": to}
            for place, (text, to) in enumerate(zip(words, ["me", "me", "nobody", "later", "me"], strict=True))
        ]
        self.web.client.post(
            "/channels/recording", json={"messages": messages}, headers={"X-Secret": SECRET}
        ).raise_for_status()
        self.web.client.post("/sessions/streamed/turns", json={"message": "hello", "stream": True})
        assert self.web.client.post("/sessions/s/turns", json={"message": ""}).status_code == 422
        self.client.save_session("s1", data={"number": number}).get(timeout=60)

    def figures(self) -> list[Figures]:
        return [scrape(port) for port in self.ports.values()]


@pytest.fixture
def fleet(
    start_web: StartWeb,
    start_worker: StartWorker,
    worker_env: dict[str, str],
    fast: dict[str, str],
    client: Client,
    tmp_path: Path,
) -> Iterator[Fleet]:
    ports = {f"inturn-{name}": free_port() for name in ("web", "worker", "delivery", "maintenance", "beat")}
    asked: dict[str, int] = {}

    def answering(sent: Sent) -> int | float:
        asked[sent.text] = asked.get(sent.text, 0) + 1
        if sent.to == "nobody":
            return 400
        return 0.05 if sent.to == "later" and asked[sent.text] == 1 else 200

    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(answering))
        env = {
            **fast,
            "INTURN_AGENT": "tests.dear_agents:agent",
            "INTURN_CHANNELS": "tests.channels:channel",
            "TEST_RECEIVER": receiver.url,
        }
        web = start_web(**env, INTURN_METRICS_PORT=str(ports["inturn-web"]))
        for name in ("worker", "delivery", "maintenance"):
            start_worker(concurrency=4, **env, INTURN_METRICS_PORT=str(ports[f"inturn-{name}"]))
        beat = ProcessContainer(
            "beat",
            [sys.executable, "-m", "celery", "-A", "worker", "beat", "-s", str(tmp_path / "schedule")],
            directory=tmp_path,
            env={
                **clean_environment(),
                **worker_env,
                **env,
                "INTURN_METRICS_PORT": str(ports["inturn-beat"]),
                "INTURN_CLEANUP_SECONDS": "1",
            },
            prompt="metrics ready",
        )
        stack.callback(beat.remove)
        beat.start()
        yield Fleet(web, client, ports)
        print(beat.tail())


@pytest.mark.process
@pytest.mark.timeout(300)
def test_every_figure_and_label_that_is_asked_for_is_told_by_some_process(fleet: Fleet) -> None:
    asked = [(name, taken_apart(text), legend) for name, text, legend in queries()]
    fleet.take_turns(0)

    def missing() -> list[str]:
        """What is asked for and not told; it becomes less as turns end."""
        labels: dict[str, set[str]] = {"up": set()}
        values: set[tuple[str, str, str]] = set()
        for figures in fleet.figures():
            for sample in figures.samples():
                labels.setdefault(sample.name, set()).update(sample.labels)
                values |= {(sample.name, label, value) for label, value in sample.labels.items()}
        return [complaint for each in asked for complaint in _complaints(*each, labels, values)]

    def nothing_missing() -> bool:
        return not missing()

    try:
        wait_until(nothing_missing, timeout=90)
    except AssertionError:
        assert missing() == []


def _complaints(
    name: str, asked: Asked, legend: str, labels: dict[str, set[str]], values: set[tuple[str, str, str]]
) -> Iterator[str]:
    there: set[str] = set(BY_PROMETHEUS)
    for metric in asked.metrics:
        if metric not in labels:
            yield f"{name}: there is no {metric}"
        there |= labels.get(metric, set())
    for metric, label, how, value in asked.matchers:
        if label not in there:
            yield f"{name}: {metric} has no {label}"
        elif label not in BY_PROMETHEUS and how == "Equal" and (metric, label, value) not in values:
            yield f"{name}: no {metric} has {label}={value}"
    yield from (f"{name}: nothing has {label}" for label in asked.grouped - there)
    shown = asked.grouped if asked.is_grouped else there
    yield from (f"{name}: the result has no {label}" for label in legend_labels(legend) - shown - {"value"})


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus; apt-get install prometheus")
def test_a_prometheus_with_our_settings_gets_a_number_for_each_query(fleet: Fleet, tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shutil.copy(RULES, tmp_path)
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{fleet.ports[job['job_name']]}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
    ]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    prometheus = ProcessContainer(
        "prometheus", command, directory=tmp_path, env=clean_environment(), prompt="Server is ready"
    )
    prometheus.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as asking:
            left = {text.replace("$__rate_interval", "30s") for _, text, _ in queries()}
            # These are silent while all is well.
            left = {text for text in left if text not in {rule["expr"] for rule in ALERTS}}
            number = 0

            def none_left() -> bool:
                nonlocal number
                number += 1
                fleet.take_turns(number)
                left.difference_update([text for text in left if _has_number(asking, text)])
                return not left

            try:
                wait_until(none_left, timeout=120)
            except AssertionError:
                assert left == set()
            groups = asking.get("/api/v1/rules").json()["data"]["groups"]
            health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
            assert health == {rule["alert"]: "ok" for rule in ALERTS}
    finally:
        prometheus.remove()
        print(prometheus.tail())


def _has_number(asking: httpx.Client, text: str) -> bool:
    answer = asking.get("/api/v1/query", params={"query": text}).json()
    assert answer["status"] == "success", (text, answer)
    return any(math.isfinite(float(sample["value"][1])) for sample in answer["data"]["result"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool; apt-get install prometheus")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", RULES),
        ("check", "config", CONFIG),
        ("test", "rules", ROOT / "tests" / "alerts.yml"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_promtool_finds_nothing_wrong_and_alerts_fire_when_they_should(words: tuple[str, str, Path]) -> None:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", PAGE, re.M)}

    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == ("docs/observability.md", rule["alert"].lower())
    assert headings >= {rule["alert"].lower() for rule in ALERTS}


def test_grafana_can_read_the_dashboard() -> None:
    assert DASHBOARD["uid"] == "inturn"
    assert DASHBOARD["id"] is None, "Grafana gives it one"
    assert DASHBOARD["schemaVersion"] >= 36
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"], variable["name"]) == (
        "datasource",
        "prometheus",
        "datasource",
    )
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + across, place["y"] + down)
            for across in range(place["w"])
            for down in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_page_has_every_figure_that_a_process_can_tell() -> None:
    told = set(re.findall(r"`(inturn_\w+?)(?:_total)?`", PAGE))
    there = set()
    for path in (
        "src/inturn/metrics.py",
        "src/inturn/turns/backlog.py",
        "worker/telemetry.py",
        "producer/metrics.py",
    ):
        text = (ROOT / path).read_text()
        there |= set(re.findall(r'"(inturn_\w+)"', text))
    for kind, name in re.findall(
        r'= (counter|seconds)\(\s*"(\w+)"', (ROOT / "src/inturn/metrics.py").read_text()
    ):
        there.add(f"inturn_{name}{'_seconds' if kind == 'seconds' else ''}")

    assert len(there) > 30
    assert there <= told
