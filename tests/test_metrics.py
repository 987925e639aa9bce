"""Metrics: each figure is right, each name as OpenMetrics wants it, and not too many of them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import dwkernel as dw
from dwkernel import errors
from dwkernel._gathering import OTHERS
from dwkernel.metrics import Collector, Family, Sample, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from conftest import Cli
    from dwkernel.bus import Stream

PATIENCE_S = 30.0


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample of an OpenMetrics text, each once."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    families: set[str] = set()
    parse: Callable[[str], Iterator[Metric]] = text_string_to_metric_families
    for family in parse(text):
        assert family.name not in families
        families.add(family.name)
        for sample in family.samples:
            place = (sample.name, frozenset(sample.labels.items()))
            assert place not in found
            found[place] = sample.value
    return found


def busy(kernel: dw.Kernel) -> None:
    """Do something of everything."""
    kernel.containers.create("docs")
    kernel.put("docs/a", b"x" * 100_000)
    stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    stream.publish_many([("orders.a", b"x" * 10)] * 20)
    stream.publish("orders.b", b"once", message_id="1")
    stream.publish("orders.c", b"later", delay="1h")
    consumer = stream.consumer("c", max_deliver=1, create=True)
    out = consumer.fetch(10, timeout=0)
    for message in out[:4]:
        message.ack()
    out[4].term("no")
    stream.consumer("paused", create=True).pause()


def test_streams_and_consumers_are_told_of(kernel: dw.Kernel) -> None:
    busy(kernel)
    told = kernel.metrics()
    orders = {"stream": "orders"}
    status = kernel.bus.stream("orders").status()
    assert told.value("dwkernel_stream_messages", **orders) == 21
    assert told.value("dwkernel_stream_bytes", **orders) == status.bytes
    assert told.value("dwkernel_stream_committed_messages_total", **orders) == 21
    assert told.value("dwkernel_stream_first_sequence", **orders) == 1
    assert told.value("dwkernel_stream_last_sequence", **orders) == 21
    assert told.value("dwkernel_stream_frames", **orders) == status.frames
    assert told.value("dwkernel_stream_delayed_messages", **orders) == 1
    assert told.value("dwkernel_stream_window_ids", **orders) == 1
    assert told.value("dwkernel_stream_upkeep_failed", **orders) == 0
    consumer = {**orders, "consumer": "c"}
    assert told.value("dwkernel_consumer_lag_messages", **consumer) == 11
    assert told.value("dwkernel_consumer_pending_messages", **consumer) == 5
    assert told.value("dwkernel_consumer_deliveries_total", **consumer) == 10
    assert told.value("dwkernel_consumer_acknowledged_messages_total", **consumer) == 4
    assert told.value("dwkernel_consumer_dead_letters_total", **consumer) == 1
    assert told.value("dwkernel_consumer_floor_sequence", **consumer) == 5
    # It is counted in milliseconds.
    end = time.monotonic() + PATIENCE_S
    while not kernel.metrics().value("dwkernel_consumer_oldest_seconds", **consumer):
        assert time.monotonic() < end
        time.sleep(0.001)
    assert told.value("dwkernel_consumer_paused", **consumer) == 0
    assert told.value("dwkernel_consumer_paused", stream="orders", consumer="paused") == 1
    assert told.value("dwkernel_streams") == 1
    assert told.value("dwkernel_consumers") == 2
    with pytest.raises(KeyError):
        told.value("dwkernel_stream_messages")
    with pytest.raises(KeyError):
        told.family("dwkernel_nothing")


def test_subscriptions_and_queues_are_told_of(kernel: dw.Kernel) -> None:
    bus = kernel.bus
    pulled = bus.subscribe("a.*", name="pulled", limit=2, policy="drop_newest", filter="size > 1")
    for data in (b"12", b"12", b"12", b"1"):
        bus.publish("a.b", data)
    pulled.fetch(1, timeout=0)
    queue: dw.queue.BoundedQueue[int] = dw.queue.BoundedQueue(8)
    queue.put_many([1, 2, 3])
    queue.get()
    with dw.queue.BytesQueue("64 KiB") as shared:
        shared.put(b"x")
        told = kernel.metrics(queues={"work": queue, "shared": shared})
    mine = {"subscription": "pulled"}
    assert told.value("dwkernel_subscription_taken_messages_total", **mine) == 2
    assert told.value("dwkernel_subscription_delivered_messages_total", **mine) == 1
    assert told.value("dwkernel_subscription_dropped_messages_total", **mine) == 1
    assert told.value("dwkernel_subscription_filtered_messages_total", **mine) == 1
    assert told.value("dwkernel_subscription_waiting_messages", **mine) == 1
    assert told.value("dwkernel_subscription_waiting_bytes", **mine) > 2
    assert told.value("dwkernel_subscription_oldest_seconds", **mine) > 0
    assert told.value("dwkernel_subscriptions") == 1
    assert told.value("dwkernel_queue_waiting_items", queue="work") == 2
    assert told.value("dwkernel_queue_put_items_total", queue="work") == 3
    assert told.value("dwkernel_queue_taken_items_total", queue="work") == 1
    assert told.value("dwkernel_queue_waiting_items", queue="shared") == 1


def test_the_pool_and_its_drives_are_told_of(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        status, told = kernel.pool.status(), kernel.metrics()
        assert told.value("dwkernel_pool_usable_bytes") == status.usable_bytes
        assert told.value("dwkernel_pool_redundancy", redundancy="full") == 1
        assert told.value("dwkernel_pool_advice") == 0
        assert told.value("dwkernel_pool_tolerated_drives") == 1
        assert told.value("dwkernel_pool_hedged_reads_total") == status.hedged_reads
        assert told.value("dwkernel_pool_hedges_won_total") == status.hedges_won
        assert (
            told.value("dwkernel_drive_late_reads_total", drive="d1") == status.drives[0].late_reads
        )
    shutil.rmtree(path / "d2")
    with dw.open(path) as kernel:
        told = kernel.metrics()
    assert told.value("dwkernel_pool_redundancy", redundancy="full") == 0
    assert told.value("dwkernel_pool_redundancy", redundancy="degraded") == 1
    assert told.value("dwkernel_pool_advice") >= 1
    assert told.value("dwkernel_drive_state", drive="d2", state="missing") == 1
    assert told.value("dwkernel_drive_state", drive="d2", state="ok") == 0
    assert told.value("dwkernel_drive_state", drive="d1", state="ok") == 1
    assert told.value("dwkernel_drive_capacity_bytes", drive="d1") > 0


def test_every_state_that_a_drive_can_have_has_a_sample() -> None:
    from dwkernel import reports

    text = reports.DriveStatus.__doc__ or ""
    states = text.split("state: ")[1].split(".")[0].replace("`", "").replace('"', "")
    assert tuple(state.strip() for state in states.split(",")) == reports.DRIVE_STATES


def test_the_text_is_openmetrics_and_says_what_the_snapshot_says(kernel: dw.Kernel) -> None:
    busy(kernel)
    told = kernel.metrics()
    text = told.openmetrics()
    assert text.endswith("# EOF\n")
    found = parsed(text)
    wanted = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in told.families
        for sample in family.samples
    }
    assert found == wanted
    assert len(wanted) > 60


def test_names_follow_the_conventions(kernel: dw.Kernel) -> None:
    busy(kernel)
    with kernel.bus.subscribe("a"):
        families = kernel.metrics(queues={"q": dw.queue.BoundedQueue(1)}).families
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("dwkernel_")
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        assert not any(part in family.name for part in ("_ms", "_kib", "_percent"))
        assert family.help[0].isupper() or family.help[0].isdigit()
        assert family.help.endswith(".")
        for sample in family.samples:
            assert sample.name == family.name + ("_total" if family.kind == "counter" else "")


def test_every_value_is_a_number(kernel: dw.Kernel) -> None:
    values = [sample.value for family in kernel.metrics().families for sample in family.samples]
    assert {type(value) for value in values} <= {int, float}


def test_labels_may_hold_anything(kernel: dw.Kernel) -> None:
    names = ['quo"te', "back\\slash", "new\nline", "ä ö {x}", OTHERS, "x" * 200]
    kept = [kernel.bus.subscribe("a", name=name) for name in names]
    kernel.bus.publish("a", b"")
    found = parsed(kernel.metrics().openmetrics())
    for name in names:
        place = ("dwkernel_subscription_waiting_messages", frozenset({("subscription", name)}))
        assert found[place] == 1, name
    assert len(kept) == len(names)


def test_subscriptions_with_the_same_name_are_one_sample(kernel: dw.Kernel) -> None:
    kept = [kernel.bus.subscribe("a.>") for _ in range(3)]
    kernel.bus.publish("a.b", b"")
    told = kernel.metrics()
    assert told.value("dwkernel_subscription_waiting_messages", subscription="a.>") == 3
    oldest = told.family("dwkernel_subscription_oldest_seconds").samples
    assert len(oldest) == 1
    assert oldest[0].value >= max(one.stats().lag_s for one in kept) / 10
    assert oldest[0].value <= max(one.stats().lag_s for one in kept)
    parsed(told.openmetrics())


def test_there_are_no_more_samples_than_the_limit_allows_and_sums_stay_right(
    kernel: dw.Kernel,
) -> None:
    for number in range(6):
        stream = kernel.bus.stream(f"s{number}", subjects=[f"s{number}"], create=True)
        stream.publish_many([(f"s{number}", b"x")] * (number + 1))
        for name in "ab":
            stream.consumer(name, create=True)
    whole, few = kernel.metrics(), kernel.metrics(limit=2)
    for told, streams, consumers in ((whole, 6, 12), (few, 3, 3)):
        messages = told.family("dwkernel_stream_messages").samples
        assert len(messages) == streams
        assert sum(sample.value for sample in messages) == 21
        lags = told.family("dwkernel_consumer_lag_messages").samples
        assert len(lags) == consumers
        assert sum(sample.value for sample in lags) == 42
    assert few.value("dwkernel_stream_messages", stream="s1") == 2
    assert few.value("dwkernel_stream_messages", stream=OTHERS) == 18
    assert few.value("dwkernel_consumer_lag_messages", stream=OTHERS, consumer=OTHERS) == 40
    # What does not add up is left out.
    first = few.family("dwkernel_stream_first_sequence").samples
    assert [sample.labels["stream"] for sample in first] == ["s0", "s1"]
    assert few.value("dwkernel_streams") == 6
    parsed(few.openmetrics())
    with pytest.raises(errors.Invalid, match="limit=0"):
        kernel.metrics(limit=0)


def test_a_stream_that_goes_in_this_moment_breaks_nothing(
    kernel: dw.Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "kept"):
        kernel.bus.stream(name, subjects=[name], create=True).consumer("c", create=True)
    real = kernel.bus.streams

    def streams() -> list[Stream]:
        found = real()
        if any(stream.name == "gone" for stream in found):
            kernel.bus.delete_stream("gone")
        return found

    monkeypatch.setattr(kernel.bus, "streams", streams)
    told = kernel.metrics()
    lags = told.family("dwkernel_consumer_lag_messages").samples
    assert [sample.labels["stream"] for sample in lags] == ["kept"]
    assert told.value("dwkernel_stream_messages", stream="kept") == 0


def test_a_closed_kernel_has_no_metrics(kernel: dw.Kernel) -> None:
    kernel.close()
    with pytest.raises(errors.State) as caught:
        kernel.metrics()
    assert caught.value.code == "store.closed"


def test_a_snapshot_prints_well_everywhere(kernel: dw.Kernel) -> None:
    busy(kernel)
    told = kernel.metrics()
    lines = str(told).splitlines()
    at = lines.index("dwkernel_stream_messages  Messages that are there.")
    assert lines[at + 1].split() == ["stream=orders", "21"]
    assert re.search(r"^dwkernel_pool_used_bytes +[\d.]+ KiB  Content", str(told), re.MULTILINE)
    # Of the states of a drive people see the one that it is in.
    at = next(n for n, line in enumerate(lines) if line.startswith("dwkernel_drive_state"))
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        [f"drive=d{number}", "state=ok", "1"] for number in (1, 2, 3)
    ]
    assert max(map(len, lines)) <= 80
    plain = json.loads(json.dumps(told.to_dict()))
    family = plain["families"]["dwkernel_stream_bytes"]
    assert (family["kind"], family["unit"]) == ("gauge", "bytes")
    assert family["samples"][0]["labels"] == {"stream": "orders"}
    assert "<table>" in told._repr_html_()
    assert "<td>dwkernel_stream_bytes</td><td>stream=orders</td>" in told._repr_html_()


def test_a_histogram_can_be_written(kernel: dw.Kernel) -> None:
    snapshot = kernel.metrics()
    family = Family("dwkernel_try_seconds", "histogram", "seconds", "A try.")
    for limit, count in (("0.1", 1), ("+Inf", 3)):
        family.samples.append(Sample("dwkernel_try_seconds_bucket", {"le": limit}, count))
    for name, value in (("count", 3), ("sum", 0.9)):
        family.samples.append(Sample(f"dwkernel_try_seconds_{name}", {}, value))
    found = parsed(Snapshot(snapshot.taken_at, 0.0, [family]).openmetrics())
    assert found["dwkernel_try_seconds_bucket", frozenset({("le", "+Inf")})] == 3


def test_a_registry_scrapes_a_kernel_as_long_as_it_is_open(kernel: dw.Kernel) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(kernel, limit=5))

    def scraped() -> dict[Any, float]:
        text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
        return parsed(text.decode())

    assert scraped()["dwkernel_streams", frozenset()] == 0
    kernel.bus.stream("s", subjects=["s"], create=True)
    assert scraped()["dwkernel_streams", frozenset()] == 1
    kernel.close()
    assert scraped() == {}


def test_without_the_extra_the_text_is_refused_with_what_to_install(
    kernel: dw.Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = kernel.metrics()
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(errors.Unsupported, match=r"pip install 'dwkernel\[metrics\]'") as caught:
        told.openmetrics()
    assert caught.value.code == "metrics.missing"
    assert "dwkernel_streams" in str(told)


def test_the_asyncio_twin_answers(kernel: dw.Kernel) -> None:
    told = asyncio.run(dw.aio.AsyncKernel(kernel).metrics(limit=3))
    assert told.value("dwkernel_streams") == 0


def test_importing_the_package_loads_neither_metrics_nor_its_extra() -> None:
    import subprocess

    code = (
        "import sys, dwkernel; "
        "print([n for n in sys.modules if 'metrics' in n or 'prometheus' in n or 'gathering' in n])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_command_prints_them_in_three_ways(cli: Cli, path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        busy(kernel)
    rows = [line.split("\t") for line in cli.run("metrics", path).stdout.splitlines()]
    assert ['dwkernel_stream_messages{"stream": "orders"}', "21"] in rows
    plain = cli.answer("metrics", path)
    assert plain["families"]["dwkernel_stream_messages"]["samples"][0]["value"] == 21
    found = parsed(cli.run("metrics", path, "--openmetrics").stdout)
    assert found["dwkernel_stream_messages", frozenset({("stream", "orders")})] == 21
    # It was opened to be read: that says nothing of the store.
    assert "dwkernel_pool_read_only" not in plain["families"]
    cli.run("metrics", path, "--openmetrics", "--json", status=2)
    assert cli.answer("metrics", path / "none", status=1)["error"]["code"] == "store.not_found"
    limited = cli.answer("metrics", path, "--limit", 1)["families"]
    assert len(limited["dwkernel_consumer_lag_messages"]["samples"]) == 2
