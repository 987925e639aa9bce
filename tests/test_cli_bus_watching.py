"""`dwkernel bus`: who is behind is told, of a store or a broker; wrong use is a line."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel.cli.bus import places
from dwkernel.cli.bus import shown as shown_as

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Cli, Here
    from dwkernel.bus import Bus, Message


# --- Consumers ------------------------------------------------------------------------------------


def test_a_consumer_is_made_listed_paused_resumed_and_deleted(here: Here) -> None:
    here.fill(6)
    options = ["--ack-wait", "5s", "--max-deliver", 3, "--backoff", "1s", "--backoff", "10s"]
    options += ["--max-ack-pending", 7, "-s", "orders.1", "--filter", "size < 9", "--start", 2]
    options += ["--priority-window", 4, "--no-dead-letters", "--ack", "explicit"]
    options += ["--inactive-after", "1h"]
    made = here("consumer create", "orders", "billing", *options, "--json").json
    assert made["settings"] == {
        "ack": "explicit",
        "ack_wait_s": 5.0,
        "max_deliver": 3,
        "backoff_s": [1.0, 10.0],
        "max_ack_pending": 7,
        "filter": "size < 9",
        "subjects": ["orders.1"],
        "start": "sequence",
        "start_at": 2,
        "priority_window": 4,
        "dead_letters": False,
        "inactive_after_s": 3600.0,
    }
    assert "stream.consumer_exists" in here("consumer create", "orders", "billing", status=1).err
    here("consumer create", "orders", "late", "--start", "2100-01-01T00:00Z")
    here("consumer pause", "orders", "billing")
    rows = here("consumers").rows
    assert [row[:4] for row in rows] == [
        ["orders", "billing", "paused", "5"],
        ["orders", "late", "ok", "0"],
    ]
    assert rows[0][-1] == "orders.1 size < 9"
    with here.opened() as stream:
        assert stream.consumer("billing").fetch(9, timeout=0) == []
    here("consumer resume", "orders", "billing")
    with here.opened() as stream:
        fetched = stream.consumer("billing").fetch(9, timeout=0)
        assert [message.sequence for message in fetched] == [4]
    here("consumer delete", "orders", "billing")
    assert [one["name"] for one in here("consumers", "orders", "--json").json] == ["late"]
    assert "stream.consumer_not_found" in here("consumer pause", "orders", "no", status=1).err


def test_lag_says_who_is_behind_also_by_its_exit_status(here: Here) -> None:
    here.fill(50)
    with here.opened() as stream:
        stream.consumer("slow", create=True)
        quick = stream.consumer("quick", create=True)
        for message in quick.fetch(45, timeout=0)[:-1]:
            message.ack()
    rows = {row[1]: row[2:] for row in here("lag").rows}
    assert rows["slow"] == ["50", "0", "0", "0", "", "0", "ok"]
    assert rows["quick"][0] == "5"
    assert here("lag", "--max-lag", 50).err == ""
    said = here("lag", "orders", "--max-lag", 49, status=1)
    assert said.err == "orders/slow is 50 messages behind, 49 allowed\n"
    late = here("lag", "--max-lag", 4, "--json", status=1).json
    assert {one["name"]: one["is_late"] for one in late} == {"slow": True, "quick": True}
    assert here("lag", "--json").json[0]["lag"] == 5


def test_dead_letters_are_shown_with_their_story_and_delivered_again(here: Here) -> None:
    here.fill(3)
    with here.opened() as stream:
        consumer = stream.consumer("c", max_deliver=2, create=True)
        other = stream.consumer("other", create=True)
        for _ in range(2):
            for message in consumer.fetch(9, timeout=5):
                if message.sequence == 2:
                    message.term("no such\tcustomer")
                else:
                    message.nak(0)
        other.fetch(1, timeout=0)[0].term("")
        consumer.flush()
        assert len(list(stream.dead_letters())) == 4
    letters = here("dead", "orders", "c", "--json").lines
    assert [one["sequence"] for one in letters] == [1, 2, 3]
    assert letters[1]["reason"] == "no such\tcustomer"
    assert [event["ending"] for event in letters[0]["history"]] == ["returned", "returned"]
    assert letters[0]["message"]["data"] == "1"
    rows = here("dead", "orders").rows
    assert rows[0] == ["c", "1", "2", "delivered as often as it may be", "orders.1", "1"]
    assert rows[1][3] == "no such\\tcustomer"
    assert len(rows) == 4
    assert here("redrive", "orders", "c", "--sequence", 2).out == "1 dead letter delivered again\n"
    assert "has no dead letter 2" in here("redrive", "orders", "c", "--sequence", 2, status=1).err
    here("redrive", "orders", "--sequence", 2, status=2)
    assert here("redrive", "orders", "--json").json == {"stream": "orders", "redriven": 3}
    assert here("dead", "orders").out == ""
    with here.opened() as stream:
        again = stream.consumer("c").fetch(9, timeout=5)
        assert {message.deliveries for message in again} == {1}
        assert sorted(message.sequence or 0 for message in again) == [1, 2, 3]


# --- Brokers and wrong use ------------------------------------------------------------------------


@pytest.fixture
def broker(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[dw.Kernel, list[str]]]:
    """A broker that is a store in memory, and the URLs that were asked for."""
    drives = [f"memory://{request.node.name}-broker-{n}" for n in range(3)]
    asked: list[str] = []
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:

        @contextlib.contextmanager
        def connect(url: str) -> Iterator[Bus]:
            asked.append(url)
            if not url.startswith("nats://"):
                raise dw.errors.new("broker.url", f"{url} is no broker's")
            yield kernel.bus

        module = ModuleType("dwkernel.brokers")
        module.connect = connect  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "dwkernel.brokers", module)
        yield kernel, asked


def test_a_url_leads_to_a_broker_with_the_same_commands(
    here: Here, broker: tuple[dw.Kernel, list[str]]
) -> None:
    kernel, asked = broker
    url = "nats://host:4222"
    here.at(url, "create", "orders", "-s", "orders.>")
    assert here.at(url, "publish", "orders.a", "1").out == "orders  1\n"
    with kernel.bus.subscribe("elsewhere") as subscription:
        assert "no stream keeps it" in here.at(url, "publish", "elsewhere", "2", "-H", "a=b").out
        heard = subscription.next(timeout=5)
        assert heard is not None
        assert (heard.data, heard.headers) == (b"2", {"a": "b"})
    here.at(url, "consumer create", "orders", "c")
    assert here.at(url, "lag", "--max-lag", 0, "--json", status=1).json[0]["lag"] == 1
    assert here.at(url, "tail", "orders", "--json").json["data"] == "1"
    assert here.at(url, "topics", "--json").json[0]["messages"] == 1
    # From a store to a broker.
    here.fill(5)
    told = here("replay", "orders", "--into", "orders", "--into-store", url, "--json").json
    assert told["published"] == 5
    assert kernel.bus.stream("orders").status().messages == 6
    assert set(asked) == {url}
    assert "broker.url" in here.at("http://host", "topics", status=2).err


def test_a_broker_is_followed_while_others_publish(
    here: Here, broker: tuple[dw.Kernel, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = broker
    stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    stream.publish("orders.a", b"0")
    shown: list[bytes] = []

    def show(_: object, message: Message) -> None:
        shown.append(message.data)
        if len(shown) == 4:
            raise KeyboardInterrupt
        # Somebody else publishes the next one while this one is looked at.
        stream.publish("orders.a", str(len(shown)).encode())

    monkeypatch.setattr(shown_as.Lines, "show", show)
    assert here.at("nats://h", "tail", "orders", "--follow", status=130).err == "stopped\n"
    assert shown == [b"0", b"1", b"2", b"3"]


def test_a_broker_s_stream_takes_messages_one_by_one(
    here: Here, broker: tuple[dw.Kernel, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, _ = broker
    kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    real = kernel.bus.stream

    class Other:
        """A stream of another kind, whose messages have no priority."""

        def __init__(self, name: str) -> None:
            self._stream = real(name)
            self.name, self.status, self.replay = name, self._stream.status, self._stream.replay

        def publish(self, subject: str, data: bytes, **fields: Any) -> int | None:
            assert "priority" not in fields
            return self._stream.publish(subject, data, **fields)

    monkeypatch.setattr(kernel.bus, "stream", Other)
    here.fill(700)
    run = ["orders", "--into", "orders", "--into-store", "nats://h", "--json"]
    assert here("replay", *run).json["published"] == 700
    assert here("replay", *run).json["published"] == 0
    taken: list[int] = []

    def publish_each(self: Other, messages: list[tuple[Any, ...]]) -> list[int]:
        taken.append(len(messages))
        return self._stream.publish_many(messages)

    # A broker that takes many at a time gets many.
    monkeypatch.setattr(Other, "publish_each", publish_each, raising=False)
    assert here("replay", *run, "--again").json["published"] == 700
    assert taken == [500, 200]
    monkeypatch.undo()
    numbers = [m.headers["n"] for m in kernel.bus.stream("orders").replay()]
    assert numbers == [str(n) for n in range(1, 701)] * 2


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["topics", "a..b"], 2, "bus.pattern"),
        (["topics", "--subjects", "--watch"], 2, "not both"),
        (["tail", "orders", "--filter", "size <"], 2, "bus.filter"),
        (["tail", "orders", "-s", "a..b"], 2, "bus.pattern"),
        (["tail", "none"], 1, "stream.not_found"),
        (["tail", "orders", "-f", "--every", "soon"], 2, "unit.invalid"),
        (["replay", "orders", "--from-time", "yesterday"], 2, "is no moment: write 2026"),
        (["replay", "orders", "--again"], 2, "go with --into"),
        (["replay", "orders", "--into", "orders"], 2, "is not replayed into itself"),
        (["replay", "orders", "--into", "none"], 1, "stream.not_found"),
        (["publish", "orders.a", "x", "-H", "a"], 2, "write NAME=VALUE"),
        (["publish", "orders.a", "x", "--id-prefix", "p"], 2, "goes with --lines"),
        (["publish", "orders.a", "x", "--lines", "--id", "p"], 2, "are for one message"),
        (["publish", "orders..a", "x"], 2, "bus.subject"),
        (["publish", "orders.a", "@/none/such"], 1, "cannot read /none/such"),
        (["publish", "orders.a", "x", "--priority", "256"], 2, "--priority"),
        (["create", "orders", "-s", "x"], 1, "stream.exists"),
        (["create", "no good", "-s", "x"], 2, "stream.name"),
        (["create", "x"], 2, "--subject"),
        (["delete", "none"], 1, "stream.not_found"),
        (["dead", "none"], 1, "stream.not_found"),
        (["redrive", "orders", "none"], 1, "stream.consumer_not_found"),
        (["lag", "none"], 1, "stream.not_found"),
        (["consumer create", "orders", "c", "--start", "soon"], 2, "is no moment"),
        (["consumer create", "orders", "c", "--filter", "("], 2, "bus.filter"),
    ],
)
def test_wrong_use_is_told_in_a_line(
    here: Here, arguments: list[str], status: int, says: str
) -> None:
    assert says in here(*arguments, status=status).err
    error = here(*arguments, "--json", status=status).json["error"]
    assert set(error) == {"code", "message", "retryable", "details", "correlation_id"}


def test_the_help_names_every_command(cli: Cli) -> None:
    said = cli.run("bus", "--help").stdout
    for name in ("topics", "publish", "tail", "consumers", "lag", "dead", "redrive", "replay"):
        assert re.search(rf"^  {name} ", said, re.MULTILINE)
    # Each is told in a line of its own, whole.
    commands = re.findall(r"^  [a-z]+ +(.+)$", said.split("Commands:")[1], re.MULTILINE)
    assert not any(text.endswith("...") for text in commands)


def test_a_command_waits_for_another_one_that_is_soon_done(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = dw.open, 0

    def open_late(*arguments: Any, **options: Any) -> dw.Kernel:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise dw.errors.new("store.locked", "held", pid=1, program="dwkernel")
        return real(*arguments, **options)

    monkeypatch.setattr(dw, "open", open_late)
    with places._store(str(here.store), writes=False, force=False) as kernel:
        assert kernel.bus.streams()
    assert tries == 3

    def held(*_: Any, **__: Any) -> dw.Kernel:
        raise dw.errors.new("store.locked", "held", pid=1, program="server", since=1)

    monkeypatch.setattr(dw, "open", held)
    start = time.monotonic()
    with pytest.raises(dw.errors.Unavailable):
        places._store(str(here.store), writes=False, force=False)
    assert time.monotonic() - start < places._PATIENCE_S


FORCED: list[list[str]] = [
    *([name] for name in ("topics", "consumers", "lag")),
    *([name, "s"] for name in ("tail", "replay", "dead", "redrive", "delete")),
    ["create", "s", "-s", "s"],
    ["publish", "s", "x"],
    *([f"consumer {name}", "s", "c"] for name in ("create", "delete", "pause", "resume")),
]


@pytest.mark.parametrize("arguments", FORCED, ids=lambda words: words[0])
def test_every_command_of_the_bus_can_be_forced(
    here: Here, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    asked: list[object] = []

    def refuse(_: object, **options: object) -> None:
        asked.append(options["force"])
        raise dw.errors.new("store.not_found", "none here")

    monkeypatch.setattr(dw, "open", refuse)
    here(*arguments, status=1)
    here(*arguments, "--force", status=1)
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("started_as", "called"),
    [
        ("/opt/lib/dwkernel/__main__.py", "dwkernel"),
        ("/usr/bin/dwkernel", "dwkernel"),
        ("-c", "python"),
        ("", "python"),
    ],
)
def test_who_holds_a_store_is_called_by_its_program_or_package(
    here: Here, monkeypatch: pytest.MonkeyPatch, started_as: str, called: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as])
    with dw.open(here.store):
        with pytest.raises(dw.errors.Unavailable) as caught:
            dw.open(here.store)
        assert caught.value.details["program"] == called
