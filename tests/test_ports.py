"""A store's own bus has the port that programs write against, and says what it promises."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import brokers, errors
from dwkernel.brokers import Message
from dwkernel.brokers.fields import Outgoing
from dwkernel.brokers.subjects import check_pattern, check_subject, covers, matches, overlaps
from dwkernel.brokers.subscription import BrokerSubscription
from dwkernel.bus import Bus, ports

if TYPE_CHECKING:
    from dwkernel import bus as kernels
    from dwkernel.brokers.status import BrokerDeadLetter


def ports_of(  # noqa: PLR0913, PLR0917 - mypy compares each class with its port
    bus: Bus,
    stream: kernels.Stream,
    consumer: kernels.Consumer,
    message: kernels.Message,
    group: kernels.Group,
    subscription: kernels.Subscription,
    letter: kernels.DeadLetter,
    own: Message,
    pulled: BrokerSubscription,
    kept: BrokerDeadLetter,
) -> tuple[
    ports.Bus,
    ports.Stream,
    ports.Consumer,
    ports.Message,
    ports.Group,
    ports.Subscription,
    ports.DeadLetter,
    ports.Message,
    ports.Subscription,
    ports.DeadLetter,
]:
    return bus, stream, consumer, message, group, subscription, letter, own, pulled, kept


def code_of(url: str) -> str:
    with pytest.raises(errors.DwError) as caught:
        brokers.connect(url)
    return caught.value.code


def test_a_store_s_message_has_the_port() -> None:
    drives = [f"memory://ports-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        stream.publish("s", b"1")
        (message,) = stream.replay()
        assert isinstance(message, ports.Message)


def test_each_promise_has_a_sentence() -> None:
    with Bus() as bus:
        promises = dict(bus.promises)
        assert len(promises) > 25
        assert all(one.says for one in promises.values())
        assert not promises["several_machines"]
        assert "| `delayed` | yes |" in bus.promises.table()


@pytest.mark.parametrize(
    "url", ["", "nats://", "http://h:1", "nats://h:0", "nats://h:99999", "redis:", "nats:4222"]
)
def test_what_is_no_address_of_a_broker_is_refused(url: str) -> None:
    assert code_of(url) == "broker.url"


def test_a_password_is_in_no_error() -> None:
    with pytest.raises(errors.Invalid) as caught:
        brokers.connect("http://user:secret@host")
    assert "secret" not in str(caught.value)


def test_patterns_mean_what_they_mean_on_a_bus() -> None:
    assert matches("a.*.c", "a.b.c")
    assert matches("a.>", "a.b.c")
    assert not matches("a.>", "a")
    assert not matches("a.*", "a.b.c")
    assert covers("a.>", "a.*.>")
    assert not covers("a.*", "a.>")
    assert overlaps("*.b", "a.*")
    assert overlaps("a.>", "*.b.c")
    assert not overlaps("a.>", "a")
    for wrong in ("", ".", "a..b", "a b", "a.>.b", "a*", "x" * 256, "a\n"):
        with pytest.raises(errors.Invalid, match=r"bus\.pattern"):
            check_pattern(wrong)
    for wrong in ("a.*", ">", "a.", "ä" * 128):
        with pytest.raises(errors.Invalid, match=r"bus\.subject"):
            check_subject(wrong)
    with Bus() as bus:
        for pattern in ("a.*.c", "a.>", "*", ">", "a"):
            with bus.subscribe(pattern):
                for subject in ("a", "a.b", "a.b.c", "b"):
                    found = bus.publish(subject).matched
                    assert found == matches(pattern, subject), (pattern, subject)


def test_a_message_for_a_broker_is_checked_as_one_for_a_store() -> None:
    assert Outgoing.of("a", memoryview(b"xyz")).data == b"xyz"
    for wrong, code in (
        ({"data": b"x" * ((1 << 20) + 1)}, "bus.message_size"),
        ({"data": "text"}, "buffer.type"),
        ({"headers": {"x": "y" * 70_000}}, "bus.message_size"),
        ({"key": "k" * 1025}, "bus.message_size"),
        ({"priority": 256}, "stream.option"),
        ({"correlation_id": "zz"}, "stream.option"),
        ({"message_id": ""}, "stream.option"),
    ):
        with pytest.raises(errors.Invalid) as caught:
            Outgoing.of("a", **{"data": b"", **wrong})  # type: ignore[arg-type]
        assert caught.value.code == code


def test_no_client_library_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys, dwkernel.brokers, dwkernel.bus.ports\n"
        "print([name for name in ('nats', 'redis', 'ssl') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def message(number: int) -> Message:
    return Message("a", str(number).encode(), {}, str(number), 0)


def test_a_full_inbox_drops_and_counts() -> None:
    subscription = BrokerSubscription("a", None, 2, lambda: None)
    for number in range(5):
        subscription.put(message(number))
    assert [one.data for one in subscription.fetch(9, 0)] == [b"0", b"1"]
    assert subscription.dropped == 3
    assert subscription.next(0) is None
    subscription.close()
    with pytest.raises(errors.State, match=r"bus\.closed"):
        subscription.next(0)


def test_closing_waits_until_what_waits_is_handled() -> None:
    done: list[bytes] = []
    told: list[int] = []
    subscription = BrokerSubscription("a", None, 10, lambda: told.append(1))
    for number in range(5):
        subscription.put(message(number))
    subscription.serve(lambda one: done.append(one.data), None, None)
    subscription.close("10s")
    subscription.close()
    subscription.put(message(9))
    assert done == [b"0", b"1", b"2", b"3", b"4"]
    assert told == [1]


def test_a_handler_that_raises_hurts_nobody_else() -> None:
    failed: list[tuple[bytes, str]] = []
    subscription = BrokerSubscription("a", None, 10, lambda: None)
    subscription.serve(
        lambda one: 1 // int(one.data),
        lambda one, error: failed.append((one.data, str(error))),
        None,
    )
    for number in (0, 1, 0):
        subscription.put(message(number))
    subscription.close("10s")
    assert [data for data, _ in failed] == [b"0", b"0"]
    assert subscription.failed == 2


def test_a_task_that_is_cancelled_has_taken_nothing() -> None:
    async def main() -> None:
        subscription = BrokerSubscription("a", None, 10, lambda: None)
        waiting = asyncio.create_task(subscription.anext())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        subscription.put(message(1))
        assert (await subscription.anext()).data == b"1"
        subscription.put(message(2))
        subscription.close()
        assert [one.data async for one in subscription] == [b"2"]

    asyncio.run(main())


class Ending:
    """A delivery that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ack(self, *, durable: bool) -> None:
        if "lost" in self.told:
            self.told.remove("lost")
            raise errors.new("broker.lost", "nobody answers")
        self.told.append(f"ack {durable}")

    def nak(self, delay_s: float | None) -> None:
        self.told.append(f"nak {delay_s}")

    def term(self, why: str) -> None:
        self.told.append(f"term {why}")

    def in_progress(self) -> None:
        self.told.append("in progress")


def test_a_delivery_ends_once() -> None:
    one, ending = message(1), Ending()
    with pytest.raises(errors.State, match=r"stream\.ack"):
        one.ack()
    one.delivery = ending
    one.in_progress()
    one.nak("2s")
    for again in (one.ack, one.nak, one.term, one.in_progress):
        with pytest.raises(errors.State, match=r"stream\.ack"):
            again()
    other = message(2)
    other.delivery = ending
    with pytest.raises(errors.Invalid, match=r"stream\.option"):
        other.nak("31d")
    other.term("ä" * 200)
    assert ending.told == ["in progress", "nak 2.0", f"term {'ä' * 128}"]
    assert one.reply(b"x") is False


def test_an_acknowledgement_that_was_lost_can_be_said_again() -> None:
    one, ending = message(1), Ending()
    one.delivery = ending
    ending.told.append("lost")
    with pytest.raises(errors.Unavailable, match=r"broker\.lost"):
        one.ack(durable=True)
    one.ack(durable=True)
    assert ending.told == ["ack True"]


def test_a_client_that_is_not_installed_is_said_with_how_to_get_it() -> None:
    program = """
import sys
sys.modules["nats"] = None
from dwkernel import brokers, errors
try:
    brokers.connect("nats://localhost:1")
except errors.DwError as error:
    print(error.code, "pip install" in str(error))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "broker.missing True", done.stderr
