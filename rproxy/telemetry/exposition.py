"""Prometheus' text format, version 0.0.4: counters, gauges and histograms, and how they are written.

Source of the format: Prometheus, "Exposition formats".  A metric is a table from label values to numbers;
adding to it is one dictionary access.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Tuple[str, ...]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric:
    """A counter or a gauge.

    :param kind: ``counter`` or ``gauge``
    :param about: one line for ``# HELP``
    :param labels: the names of the labels; every sample has all of them
    """

    def __init__(self, name: str, kind: str, about: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.kind = kind
        self.about = about
        self.labels = tuple(labels)
        self._values: Dict[Labels, float] = {}

    def add(self, amount: float, *labels: str) -> None:
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def set(self, value: float, *labels: str) -> None:
        self._values[labels] = value

    def lines(self) -> Iterator[str]:
        """The samples, without ``# HELP`` and ``# TYPE``."""
        for labels, value in self._values.items():
            yield f"{self.name}{_label_text(self.labels, labels)} {_number(value)}"


class Histogram:
    """How often a value was at most each of the bounds.

    :param bounds: in ascending order; ``+Inf`` is added
    """

    kind = "histogram"

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._counts: Dict[Labels, List[int]] = {}
        self._sums: Dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> Iterator[str]:
        names = (*self.labels, "le")
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts):
                total += count
                yield f"{self.name}_bucket{_label_text(names, (*labels, bound))} {total}"
            text = _label_text(self.labels, labels)
            yield f"{self.name}_sum{text} {_number(self._sums[labels])}"
            yield f"{self.name}_count{text} {total}"


def exposition(metrics: Iterable[Union[Metric, Histogram]]) -> str:
    """The body of ``GET /metrics``."""
    return "".join(
        f"# HELP {metric.name} {metric.about}\n# TYPE {metric.name} {metric.kind}\n"
        + "".join(line + "\n" for line in metric.lines())
        for metric in metrics
    )


def gauge(name: str, about: str, value: float) -> Metric:
    """A gauge without labels, as it is now."""
    metric = Metric(name, "gauge", about)
    metric.set(value)
    return metric


def gauges(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A gauge with labels, as it is now.

    :param values: tuples of label values -> numbers
    """
    metric = Metric(name, "gauge", about, labels)
    for key, value in values.items():
        metric.set(value, *key)
    return metric


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values))
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else repr(round(value, 9))
