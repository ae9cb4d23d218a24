"""What Prometheus reads of a process: figures by name and labels."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Figures:
    """What one process has said; `figures(name, label="value")` sums what has these labels."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))

    def samples(self) -> Iterator[Sample]:
        for family in self.families:
            yield from family.samples

    def __call__(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in self.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def scrape(port: int, path: str = "/metrics") -> Figures:
    """Ask a process on this machine, as Prometheus does."""
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30)
    assert answer.status_code == 200
    return Figures(answer.text)
