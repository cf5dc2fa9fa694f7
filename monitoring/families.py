"""What metrics are made of: the registry, gauges that are absent until known, and the list for the documentation."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` twin of every counter: nobody asks for it
REGISTRY: Final = CollectorRegistry()
UNKNOWN: Final = math.nan


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the documentation tells it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


CATALOGUE: Final[list[Described]] = []


class LateGauge(Gauge):
    """A gauge that exports nothing while its value is NaN, which is what it starts with and what forgets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self._labelnames:
            self.set(UNKNOWN)

    def collect(self) -> Iterable[Metric]:
        """Yield the family with its known samples."""
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not math.isnan(sample.value)]
            yield family


def _describe(name: str, kind: str, labels: tuple[str, ...], help_text: str) -> str:
    described = Described(f"codelupe_{name}", kind, labels, help_text)
    CATALOGUE.append(described)
    return described.name


def gauge(name: str, help_text: str, *labels: str) -> LateGauge:
    """Make a gauge; without labels it is absent until it is set."""
    return LateGauge(_describe(name, "gauge", labels, help_text), help_text, labels, registry=REGISTRY)


def counter(name: str, help_text: str, *labels: str) -> Counter:
    """Make a counter."""
    return Counter(_describe(name, "counter", labels, help_text), help_text, labels, registry=REGISTRY)


def histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    """Make a histogram with these upper bounds."""
    full_name = _describe(name, "histogram", labels, help_text)
    return Histogram(full_name, help_text, labels, registry=REGISTRY, buckets=buckets)
