"""What /metrics shows. Apps are not labels: their number has no bound, and their names are no one else's business."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Seconds; an accept takes a few milliseconds, a stream as long as its run.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Figures:
    """One process's counters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "flo_http_requests", "Requests answered", ["method", "route", "status"], registry=self._registry
        )
        self.durations = Histogram(
            "flo_http_request_seconds",
            "Time until a request was answered",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.accepted = Counter("flo_runs_accepted", "Runs accepted", ["lane"], registry=self._registry)
        self.deliveries = Counter(
            "flo_webhook_deliveries", "Webhook requests, by what became of them", ["outcome"], registry=self._registry
        )
        self.runs = Gauge(
            "flo_runs", "Runs that are not over, by lane and status", ["lane", "status"], registry=self._registry
        )
        self.unpublished = Gauge(
            "flo_outbox_rows", "Messages that have not reached the broker yet", registry=self._registry
        )

    def as_text(self) -> bytes:
        return generate_latest(self._registry)
