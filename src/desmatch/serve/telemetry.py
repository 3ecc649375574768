"""What Prometheus is told of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.018, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Bounds of the histogram of seconds; the contest's limit is one of them."""

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 1024)


class Telemetry:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "desmatch_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "desmatch_request_seconds", "From the first byte to the answer", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "desmatch_batch_pairs", "Pairs of one call of the model",
            buckets=BATCH_SIZES, registry=self.registry,
        )  # fmt: skip
        self.pairs = Counter("desmatch_pairs", "Pairs scored", registry=self.registry)
        self.unknown_ids = Counter(
            "desmatch_unknown_ids", "Ids that training has not seen", registry=self.registry
        )
        self.waiting = Gauge(
            "desmatch_waiting_pairs", "Pairs that wait for the model", registry=self.registry
        )

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)
