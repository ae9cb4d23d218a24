"""Metrics: what Prometheus may ask of one web process."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from inturn.metrics import serve_metrics, start_counting
from inturn.settings import Settings
from inturn.turns.backlog import BacklogCollector, BacklogReader

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Figures of this process; labels take few values, and none of a user's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        start_counting(self.registry)
        self.accepted = Counter(
            "inturn_web_turns_accepted",
            "Turns accepted; `known`: nothing was added.",
            ["outcome"],
            registry=self.registry,
        )
        self.refused = Counter(
            "inturn_web_refused",
            "Requests refused, by the kind of problem.",
            ["reason"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "inturn_web_request_seconds",
            "Seconds until an answer began.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._readers = Gauge(
            "inturn_web_readers",
            "Event streams that are open, and requests that wait for a reply.",
            registry=self.registry,
        )
        self._backlog = BacklogCollector()
        self.registry.register(self._backlog)

    def count_backlog(self, reader: BacklogReader) -> None:
        """Take what waits in all sessions from here, whenever it is asked for."""
        self._backlog.reader = reader

    def count_readers(self, readers: Callable[[], float]) -> None:
        """Take the number of readers from here, whenever it is asked for."""
        self._readers.set_function(readers)

    def serve(self, settings: Settings) -> Callable[[], None]:
        """Answer Prometheus at `INTURN_METRICS_PORT` too, if it is set; returns what ends it."""
        server = None
        if settings.metrics_port is not None:
            server = serve_metrics(self.registry, settings.metrics_host, settings.metrics_port)

        def close() -> None:
            if server is not None:
                server.shutdown()
                server.server_close()

        return close

    def text(self) -> bytes:
        """All figures in Prometheus' format."""
        return generate_latest(self.registry)
