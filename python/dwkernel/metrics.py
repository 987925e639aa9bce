"""Figures of a running kernel, as monitoring reads them.

>>> import dwkernel as dw
>>> drives = [f"memory://doc-metrics-{n}" for n in range(3)]
>>> with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
...     stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
...     _ = stream.publish("orders.eu", b"1")
...     kernel.metrics().value("dwkernel_stream_messages", stream="orders")
1

Names, units and kinds follow OpenMetrics 1.0 and the naming advice of Prometheus: base units at the
end of the name, `_total` at the end of a counter's sample. How many samples a snapshot may have is
bounded: see `Kernel.metrics`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dwkernel import errors
from dwkernel.reports import Report, plain
from dwkernel.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import ModuleType

    from prometheus_client import Metric

    from dwkernel.kernel import Kernel

__all__ = ["Collector", "Family", "Sample", "Snapshot"]

Kind = Literal["counter", "gauge", "histogram"]

_VALUE_WIDTH = 9


class Sample(NamedTuple):
    """One figure.

    Attributes:
        name: the family's name, with the ending that its kind asks for (`_total`, `_bucket`, …).
        labels: what it is about.
        value: how much, in the family's unit.

    """

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family(Report):
    """Figures of one name.

    Attributes:
        name: with the unit at its end, without `_total`.
        kind: `"counter"` (only rises while the program runs), `"gauge"` or `"histogram"`.
        unit: `"bytes"`, `"seconds"`, `"messages"`, …; empty for none.
        help: a sentence.
        samples: by label.
        one_of: True if of the samples that differ in their last label one is 1 and the others 0.

    """

    name: str
    kind: Kind
    unit: str
    help: str
    samples: list[Sample] = field(default_factory=list)
    one_of: bool = False

    def add(self, value: float, labels: dict[str, str]) -> None:
        """Add a figure of a counter or a gauge."""
        ending = "_total" if self.kind == "counter" else ""
        number = int(value) if isinstance(value, bool) else value
        self.samples.append(Sample(self.name + ending, labels, number))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        samples = [sample._asdict() for sample in self.samples]
        about = {"name": self.name, "kind": self.kind, "unit": self.unit, "help": self.help}
        return {**about, "samples": samples}

    def shown(self, value: float) -> str:
        """Return a value with its unit, for people."""
        if self.unit == "bytes":
            return format_size(int(value))
        if self.unit == "seconds":
            return format_duration(value)
        return f"{value:,}"


@dataclass(frozen=True, slots=True)
class Snapshot(Report):
    """All figures of a kernel, each as of some moment while they were gathered.

    Attributes:
        taken_at: when that began.
        seconds: how long it took.
        families: by name.

    """

    taken_at: datetime
    seconds: float
    families: list[Family]

    def family(self, name: str) -> Family:
        """Return the family of a name.

        Raises:
            KeyError: there is none

        """
        found = next((family for family in self.families if family.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a sample: of the family or sample `name`, with exactly these labels.

        Raises:
            KeyError: there is none

        """
        for family in self.families:
            for sample in family.samples:
                if name in (family.name, sample.name) and sample.labels == labels:
                    return sample.value
        raise KeyError(name, labels)

    def openmetrics(self) -> str:
        """Return the text of OpenMetrics 1.0, which ends with `# EOF`.

        Its media type is `application/openmetrics-text; version=1.0.0; charset=utf-8`.

        Raises:
            Unsupported: `metrics.missing`: `pip install 'dwkernel[metrics]'`

        """
        _client()
        from prometheus_client.openmetrics.exposition import (  # noqa: PLC0415 - an extra
            generate_latest,
        )

        write: Callable[[_Registry], bytes] = generate_latest
        text = write(_Registry(self))
        return text.decode()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON: families by name."""
        families = {family.name: _plain_family(family) for family in self.families}
        return {"taken_at": plain(self.taken_at), "seconds": self.seconds, "families": families}

    def __str__(self) -> str:
        """Print for people: what each family is, and its figures."""
        single = {family.name for family in self.families if _is_single(family)}
        names = max(map(len, single), default=2)
        lines: list[str] = []
        for family in self.families:
            rows = list(_rows(family))
            if family.name in single:
                lines.append(f"{family.name:<{names}}  {rows[0][1]:>{_VALUE_WIDTH}}  {family.help}")
                continue
            lines.append(f"{family.name}  {family.help}")
            # Figures stand below each other, unless labels are long.
            lines += (f"  {text:<{names - 2}}  {value:>{_VALUE_WIDTH}}" for text, value in rows)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        cells = "".join(
            f"<tr><td>{html.escape(family.name)}</td><td>{html.escape(labels)}</td>"
            f"<td style='text-align:right'>{html.escape(value)}</td>"
            f"<td>{html.escape(family.help)}</td></tr>"
            for family in self.families
            for labels, value in _rows(family)
        )
        return f"<table><tbody>{cells}</tbody></table>"


class Collector:
    """Figures of a kernel for a registry of `prometheus_client`: `registry.register(Collector(k))`.

    Each scrape takes a snapshot. After the kernel was closed there is nothing.
    """

    def __init__(self, kernel: Kernel, **options: Any) -> None:
        """Take a kernel, and options of `Kernel.metrics`."""
        self._kernel = kernel
        self._options = options

    def collect(self) -> Iterator[Metric]:
        """Yield what a scrape wants.

        Raises:
            Unsupported: `metrics.missing`

        """
        if self._kernel.closed:
            return iter(())
        return _metrics(self._kernel.metrics(**self._options))

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: a registry takes it without gathering first."""
        return iter(())


class _Registry:
    """What `generate_latest` asks."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return _metrics(self._snapshot)


def _metrics(snapshot: Snapshot) -> Iterator[Metric]:
    client = _client()
    for family in snapshot.families:
        metric = client.Metric(family.name, family.help, family.kind, family.unit)
        for sample in family.samples:
            metric.add_sample(sample.name, sample.labels, sample.value)
        yield metric


def _client() -> ModuleType:
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError:
        text = "prometheus_client, which writes this text, is not installed"
        raise errors.new("metrics.missing", text) from None
    return prometheus_client


def _plain_family(family: Family) -> dict[str, Any]:
    return {name: value for name, value in family.to_dict().items() if name != "name"}


def _is_single(family: Family) -> bool:
    return len(family.samples) == 1 and not family.samples[0].labels


def _rows(family: Family) -> Iterator[tuple[str, str]]:
    """Yield labels and value of each figure that says something."""
    for sample in family.samples:
        if sample.value or not family.one_of:
            labels = " ".join(f"{name}={value}" for name, value in sample.labels.items())
            yield labels, family.shown(sample.value)
