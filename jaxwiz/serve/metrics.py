"""What Prometheus is told: requests by route and status, times, and the engine's counters read when it asks."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jaxwiz.sample.requests import Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _EngineCollector(Collector):
    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        gauges = {
            "slots": ("answers that can be generated at once", now.slots),
            "slots_used": ("answers being generated", now.slots_used),
            "waiting": ("answers that wait for a slot", now.waiting),
            "cache_tokens": ("tokens of keys and values in use", now.cache_tokens),
            "cache_capacity_tokens": ("tokens that the cache has room for now", now.cache_capacity),
        }
        counters = {
            "prompt_tokens": ("tokens of prompts", now.prompt_tokens),
            "shared_prompt_tokens": ("of them, taken from an earlier prompt's cache", now.shared_tokens),
            "generated_tokens": ("tokens generated", now.new_tokens),
            "answers": ("answers finished", now.finished),
            "busy_seconds": ("time that the engine worked", now.busy_seconds),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"jaxwiz_{name}", text, value=value)
        for name, (text, count) in counters.items():
            yield CounterMetricFamily(f"jaxwiz_{name}", text, value=count)


class Metrics:
    """The server's own registry."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(statistics))
        self._requests = Counter(
            "jaxwiz_http_requests", "requests by route and status", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "jaxwiz_request_seconds", "from a request to its last byte", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._first = Histogram(
            "jaxwiz_first_token_seconds", "from a request to its first token", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip

    def count(self, route: str, status: int, seconds: float) -> None:
        """Counts a finished request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """Notes how long a request waited for its first token."""
        self._first.observe(seconds)

    def text(self) -> bytes:
        """Returns all of it in Prometheus' text format."""
        return generate_latest(self._registry)
