"""``/metrics``: the metrics for Prometheus, with one registry per service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")


class Metrics:
    """Counts requests, nodules and time; gauges are computed when the metrics are read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "nodule_diag_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "nodule_diag_request_seconds", "Time to answer.", ("route",), buckets=SECONDS, registry=self._registry
        )
        self._nodules = Counter("nodule_diag_nodules", "Nodules that were diagnosed.", registry=self._registry)
        self._stages = Counter(
            "nodule_diag_stage_seconds", "Time in the stages of predictions.", ("stage",), registry=self._registry
        )
        ProcessCollector(registry=self._registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def prediction(self, nodules: int, timing_ms: Mapping[str, float]) -> None:
        """Count a prediction's nodules and time."""
        self._nodules.inc(nodules)
        for stage, ms in timing_ms.items():
            self._stages.labels(stage).inc(ms / 1000.0)

    def watch(self, gauges: Callable[[], dict[str, float]]) -> None:
        """Compute the values of gauges whenever the metrics are read."""
        self._registry.register(_Gauges(gauges))

    def text(self) -> bytes:
        """All metrics, in the format of Prometheus."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, values: Callable[[], dict[str, float]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, value in self._values().items():
            yield GaugeMetricFamily(f"nodule_diag_{name}", name.replace("_", " "), value=value)
