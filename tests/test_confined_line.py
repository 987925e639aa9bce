"""Calls over one socket, with the test as the plugin's process: nobody else reads or ends it."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors
from dwkernel.plugins.confined.dwkernel_inside import wire
from dwkernel.plugins.confined.line import Line
from dwkernel.plugins.confined.printed import Printed
from expect import code_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Peer:
    """A line, and its other end."""

    def __init__(self, calls: int = 4) -> None:
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(60)
        self.breaches: list[str] = []
        self.line = Line(ours, "tested", 1 << 20, calls, self.breaches.append)

    def asked(self) -> tuple[int, list[Any]]:
        """Wait for a call; return its number, and method and arguments."""
        packet = self.sock.recv(wire.PACKET_BYTES)
        kind, number, payload = wire.Assembly(1 << 20, 1).take(packet) or (0, 0, b"")
        assert kind == wire.CALL
        return number, wire.decode(payload)

    def answer(self, number: int, value: Any, kind: int = wire.ANSWER) -> None:
        for packet in wire.packets(kind, number, wire.encode(value, 1 << 20)):
            self.sock.sendmsg(packet)

    def close(self) -> None:
        self.sock.close()
        self.line.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    one.close()


def call(peer: Peer, method: str, wait_s: float = 60.0) -> Any:
    return peer.line.call(method, (), wait_s, 60.0)


def test_when_the_reader_has_its_answer_the_next_that_waits_reads(peer: Peer) -> None:
    with ThreadPoolExecutor(3) as pool:
        waiting = []
        numbers = []
        for method in ("first", "second", "third"):
            waiting.append(pool.submit(call, peer, method))
            numbers.append(peer.asked()[0])
        # The first reads for all three, and goes first.
        for number, one in zip(numbers, waiting, strict=True):
            peer.answer(number, number)
            assert one.result(10) == number


def test_a_reader_whose_time_is_over_hands_the_reading_on(peer: Peer) -> None:
    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(call, peer, "short", 0.2)
        peer.asked()
        long = pool.submit(call, peer, "long")
        number = peer.asked()[0]
        assert code_of(lambda: short.result(60)) == "plugin.timeout"
        kind = peer.sock.recv(100)[0]
        assert kind == wire.CANCEL
        peer.answer(number, "there")
        assert long.result(10) == "there"


def test_answers_come_back_in_any_order(peer: Peer) -> None:
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(call, peer, f"m{number}") for number in range(4)]
        asked = [peer.asked() for _ in range(4)]
        for number, (method, *_) in reversed(asked):
            peer.answer(number, method)
        assert [one.result(10) for one in waiting] == [f"m{number}" for number in range(4)]


def test_a_late_answer_to_who_waits_no_longer_is_no_breach_but_a_second_one_is(
    peer: Peer,
) -> None:
    assert code_of(lambda: call(peer, "slow", 0.01)) == "plugin.timeout"
    number = peer.asked()[0]
    assert len(peer.line.open) == 1
    peer.answer(number, "late")
    peer.line.attend(10)
    assert (len(peer.line.open), peer.breaches) == (0, [])
    peer.answer(number, "again")
    peer.line.attend(10)
    assert f"call {number}" in peer.breaches[0]


def test_abandoned_calls_keep_their_places_until_they_are_answered() -> None:
    peer = Peer(calls=2)
    for _ in range(2):
        assert code_of(lambda: call(peer, "slow", 0.01)) == "plugin.timeout"
    begun = time.monotonic()
    assert code_of(lambda: call(peer, "third", 0.1)) == "plugin.timeout"
    assert time.monotonic() - begun >= 0.1
    numbers = [peer.asked()[0]]
    peer.sock.recv(100)  # its cancel
    numbers.append(peer.asked()[0])
    for number in numbers:
        peer.answer(number, None)
    peer.line.attend(10)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(call, peer, "third")
        peer.sock.recv(100)  # the cancel of the second
        peer.answer(peer.asked()[0], 3)
        assert third.result(10) == 3
    peer.close()


def test_a_process_that_reads_nothing_costs_a_caller_its_time_and_no_more(peer: Peer) -> None:
    codes = {code_of(lambda: peer.line.call("x", (bytes(1 << 19),), 0.2, 0.4)) for _ in range(4)}
    assert codes == {"plugin.timeout"}


def test_the_end_is_told_to_all_that_wait_and_all_that_come(peer: Peer) -> None:
    def over(_call: object) -> errors.DwError:
        return errors.new("plugin.died", "it is over")

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(call, peer, "x") for _ in range(3)]
        for _ in waiting:
            peer.asked()
        peer.line.finish(over)
        # Who reads sees the end of the line, as it does when a process dies.
        peer.sock.shutdown(socket.SHUT_RDWR)
        for one in waiting:
            assert code_of(lambda one=one: one.result(10)) == "plugin.died"  # type: ignore[misc]
    assert code_of(lambda: call(peer, "y")) == "plugin.died"
    assert peer.line.failed == 3


def test_events_are_kept_in_bounds(peer: Peer) -> None:
    for number in range(900):
        peer.answer(0, ["n", number], wire.EVENT)
        peer.line.attend(1)
    until(lambda: time.monotonic() - peer.line._second >= 1)
    for number in range(900, 1500):
        peer.answer(0, ["n", number], wire.EVENT)
        peer.line.attend(1)
    assert (len(peer.line.events), peer.line.events_dropped) == (1000, 500)
    assert peer.line.events[-1] == ("n", 1499)


def test_printed_lines_are_bounded_in_number_and_length_however_they_come() -> None:
    reading, writing = os.pipe()
    printed = Printed(reading)
    for _ in range(40):
        os.write(writing, b"x" * 60_000)  # a line that never ends
        printed.read(1 << 16)
    assert len(printed._rest) == 1000
    os.write(writing, b"\n" * 60_000)
    printed.read(1 << 16)
    assert len(printed.lines) == 100
    os.write(writing, b"caf\xff\r\nend")
    printed.read(1 << 16)
    assert printed.lines[-2:] == ("caf\ufffd", "end")
    os.close(writing)
    printed.read(1 << 16)
    assert printed.ended
    os.close(reading)
