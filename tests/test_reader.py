"""A reader that several threads, signals and forks come to at the same time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import _native, errors
from expect import until
from python_drive import DictDrive, DictDrives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Interrupt(Exception):
    """Ctrl-C, of a test."""


class SlowDrive(DictDrive):
    """Each read waits until it may go on."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.go_on, self.asked = threading.Event(), threading.Event()
        self.go_on.set()

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.asked.set()
        self.go_on.wait(60)
        return super().read(name, offset, length)

    def hold(self) -> None:
        self.asked.clear()
        self.go_on.clear()


@pytest.fixture
def drive() -> Iterator[SlowDrive]:
    drives = DictDrives()
    drive = drives.drives["dict://slow"] = SlowDrive("slow")
    _native.register_drives("dict", drives.open)
    yield drive
    drive.go_on.set()
    _native.unregister_drives("dict")


@pytest.fixture
def slow(drive: SlowDrive) -> Iterator[dw.Kernel]:
    with dw.open(drives=["dict://slow"], create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", bytes(range(256)) * 1000)
        yield kernel
        drive.go_on.set()


@pytest.fixture
def alarm() -> Iterator[Callable[[Any, float], None]]:
    before = signal.getsignal(signal.SIGALRM)

    def at(handler: Any, seconds: float) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield at
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _on_threads(work: Callable[[], object], count: int = 4) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


_NUMBERS = b"".join(b"%07d\n" % number for number in range(40_000))


def _read(reader: dw.objects.Reader) -> bytes:
    return reader.read(8)


def _readinto(reader: dw.objects.Reader) -> bytes:
    into = bytearray(8)
    return bytes(into[: reader.readinto(into)])


def _next(reader: dw.objects.Reader) -> bytes:
    return next(reader, b"")


@pytest.mark.parametrize("take", [_read, _readinto, _next])
def test_threads_that_share_a_reader_get_each_byte_once_and_in_order(
    kernel: dw.Kernel, take: Callable[[dw.objects.Reader], bytes]
) -> None:
    kernel.put("docs/numbers", _NUMBERS)
    with kernel.get("docs/numbers") as reader:
        got: list[bytes] = []

        def work() -> None:
            mine = []
            while piece := take(reader):
                mine.append(piece)
            assert mine == sorted(mine), "what one thread gets is in the order of its calls"
            got.extend(mine)

        _on_threads(work)
        assert b"".join(sorted(got)) == _NUMBERS
        assert reader.tell() == len(_NUMBERS)


def test_a_line_is_read_up_to_its_end_or_the_size_that_is_asked(kernel: dw.Kernel) -> None:
    long = b"x" * 200_000
    content = b"one\n\n" + long + b"\nlast"
    kernel.put("docs/lines", content)
    with kernel.get("docs/lines") as reader:
        assert [reader.readline(2), reader.readline(-1), reader.readline(None)] == [
            b"on",
            b"e\n",
            b"\n",
        ]
        assert (reader.readline(0), reader.readline(100_000)) == (b"", long[:100_000])
        # What was read ahead is handed out, and then the rest.
        assert reader.read(150_000) == content[100_005:250_005]
        assert reader.seek(0) == 0
        assert list(reader) == content.splitlines(keepends=True)
        assert reader.readline() == b""
        assert reader.seek(-4, os.SEEK_END) == len(content) - 4
        assert reader.readlines() == [b"last"]


def test_a_signal_ends_the_wait_for_another_threads_read_and_nothing_is_lost(
    slow: dw.Kernel, drive: SlowDrive, alarm: Callable[[Any, float], None]
) -> None:
    def raise_it(*_: object) -> None:
        raise _Interrupt

    with slow.get("docs/a") as reader:
        drive.hold()
        got: list[bytes] = []
        other = threading.Thread(target=lambda: got.append(reader.read(1000)))
        other.start()
        assert drive.asked.wait(60)
        late = threading.Timer(20, drive.go_on.set)
        late.start()
        for wait in (lambda: reader.read(10), reader.readline, reader.close):
            alarm(raise_it, 0.1)
            with pytest.raises(_Interrupt):
                wait()
        assert not drive.go_on.is_set(), "the signal was heard after the wait"
        late.cancel()
        drive.go_on.set()
        other.join()
        assert got[0] + reader.read() == bytes(range(256)) * 1000


def test_waiting_for_another_threads_read_ends_with_its_own_deadline(
    slow: dw.Kernel, drive: SlowDrive
) -> None:
    with slow.get("docs/a", timeout="100ms") as reader:
        reader._timeout_s = 60
        drive.hold()
        other = threading.Thread(target=reader.read)
        other.start()
        assert drive.asked.wait(60)
        reader._timeout_s = 0.1
        with pytest.raises(errors.Timeout) as caught:
            reader.read()
        assert caught.value.code == "context.deadline"
        drive.go_on.set()
        other.join()


def test_a_signal_handler_that_reads_in_the_middle_of_a_read_is_told(
    slow: dw.Kernel, drive: SlowDrive, alarm: Callable[[Any, float], None]
) -> None:
    size = 40 << 20  # signals are heard between pieces
    slow.put("docs/long", bytes(size))
    said: list[str] = []

    def handler(*_: object) -> None:
        for call in (lambda: reader.read(1), reader.readline, lambda: reader.seek(0), reader.close):
            try:
                call()
            except errors.State as error:
                said.append(error.code)
        assert reader.tell() == 0
        drive.go_on.set()

    with slow.get("docs/long") as reader:
        drive.hold()
        # The first piece is read when the signal has come.
        threading.Timer(0.5, drive.go_on.set).start()
        alarm(handler, 0.2)
        assert len(reader.read()) == size
        assert said == ["object.reading"] * 4
        assert reader.read() == b""


def test_closing_waits_for_a_read_that_is_under_way(slow: dw.Kernel, drive: SlowDrive) -> None:
    reader = slow.get("docs/a")
    drive.hold()
    got: list[Any] = []

    def read(size: int) -> None:
        try:
            got.append(reader.read(size))
        except errors.State as error:
            got.append(error.code)

    reading = threading.Thread(target=read, args=(1000,))
    reading.start()
    assert drive.asked.wait(60)
    closing = threading.Thread(target=reader.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    drive.go_on.set()
    closing.join()
    reading.join()
    assert len(got[0]) == 1000
    read(1)
    assert got[1] == "store.closed"
    assert reader.closed


def test_a_child_of_a_fork_is_refused_also_where_a_thread_was_reading(
    slow: dw.Kernel, drive: SlowDrive
) -> None:
    with slow.get("docs/a") as reader:
        drive.hold()
        other = threading.Thread(target=reader.read)
        other.start()
        assert drive.asked.wait(60)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                reader.read(1)
            except errors.State as error:
                reader.close()
                status = 0 if error.code == "store.forked" else 2
            finally:
                os._exit(status)
        ended: list[int] = []

        def has_ended() -> bool:
            pid, status = os.waitpid(child, os.WNOHANG)
            ended.extend([status] if pid else [])
            return bool(pid)

        try:
            until(has_ended)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            drive.go_on.set()
            other.join()
        assert ended == [0]
