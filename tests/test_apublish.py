"""Publishing in coroutines: together, in the order of the calls, taken back in time."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterator

    from dwkernel.bus.stream import Stream

LONG = b"x" * 500_000


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    with dw.open(tmp_path / "store", drives=3, create=True) as kernel:
        yield kernel.bus.stream("s", subjects=["s.>"], create=True)


def texts(stream: Stream) -> list[bytes]:
    return [message.data[:10] for message in stream.replay()]


async def acode_of(waiting: Awaitable[object]) -> str:
    """Return the code of the error that comes of it."""
    with pytest.raises(dw.errors.DwError) as caught:
        await waiting
    return caught.value.code


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


async def in_line(
    stream: Stream, count: int, *behind: Coroutine[Any, Any, int | None]
) -> list[asyncio.Task[int | None]]:
    """Have messages that take a while to write in line, and others right behind them."""
    long = [stream.apublish("s.long", LONG) for _ in range(count)]
    tasks = [asyncio.create_task(message) for message in (*long, *behind)]
    await asyncio.sleep(0)
    return tasks


def test_tasks_share_commits_and_keep_the_order_of_their_calls(stream: Stream) -> None:
    async def publish() -> list[int | None]:
        messages = (stream.apublish("s.a", b"%d" % n, key="k") for n in range(3000))
        return await asyncio.gather(*messages)

    assert asyncio.run(publish()) == list(range(1, 3001))
    assert texts(stream) == [b"%d" % n for n in range(3000)]
    assert stream.status().frames < 1000


def test_no_thread_is_started_for_each_message(stream: Stream) -> None:
    async def publish() -> int:
        await stream.apublish("s.a", b"0")
        before = threads()
        waiting = await in_line(stream, 30)
        during = threads()
        await asyncio.gather(*waiting)
        return during - before

    assert asyncio.run(publish()) <= 2


def test_cancelled_in_line_a_message_is_taken_back(stream: Stream) -> None:
    async def publish() -> None:
        behind = [stream.apublish("s.a", text) for text in (b"cancelled", b"after")]
        *before, cancelled, after = await in_line(stream, 40, *behind)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.gather(*before, after)
        assert after.result() == 41

    asyncio.run(publish())
    assert texts(stream)[40:] == [b"after"]


def test_a_message_whose_time_is_over_in_line_is_not_there(stream: Stream) -> None:
    async def publish() -> None:
        behind = stream.apublish("s.a", b"late", timeout="1ms")
        *before, late = await in_line(stream, 100, behind)
        with pytest.raises(dw.errors.Timeout) as caught:
            await late
        assert caught.value.code == "context.deadline"
        assert "outcome" not in caught.value.details
        assert caught.value.correlation_id
        await asyncio.gather(*before)

    asyncio.run(publish())
    assert len(texts(stream)) == 100


def test_what_is_wrong_is_told_with_a_code(stream: Stream, tmp_path: Path) -> None:
    async def publish() -> None:
        assert await acode_of(stream.apublish("other", b"x")) == "stream.subject"
        assert await acode_of(stream.apublish("s.a", b"x", message_id="")) == "stream.option"
        assert await acode_of(stream.apublish("s.a", b"x", timeout=0)) == "context.deadline"
        assert await stream.apublish("s.a", b"x", message_id="1") == 1
        assert await stream.apublish("s.a", b"x", message_id="1") == 1
        assert await stream.apublish("s.a", b"x", delay="1h") is None
        with dw.open(tmp_path / "other", drives=1, create=True) as kernel:
            closed = kernel.bus.stream("s", subjects=["s"], create=True)
        assert await acode_of(closed.apublish("s", b"x")) == "bus.closed"

    asyncio.run(publish())
    assert len(texts(stream)) == 1


def test_closing_the_store_writes_what_is_in_line(tmp_path: Path) -> None:
    async def publish() -> list[int | None]:
        with dw.open(tmp_path / "store", drives=3, create=True) as kernel:
            waiting = await in_line(kernel.bus.stream("s", subjects=["s.>"], create=True), 20)
        return await asyncio.gather(*waiting)

    assert asyncio.run(publish()) == list(range(1, 21))
    with dw.open(tmp_path / "store") as kernel:
        assert kernel.bus.stream("s").status().messages == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_fork_neither_hangs_nor_takes_anything_back(stream: Stream) -> None:
    async def publish() -> None:
        waiting = await in_line(stream, 20)
        child = os.fork()
        if child == 0:
            # Not by its loop, which is the parent's as well.
            for task in waiting:
                coroutine = task.get_coro()
                assert isinstance(coroutine, CoroutineType)
                with suppress(dw.errors.DwError, asyncio.CancelledError):
                    coroutine.throw(asyncio.CancelledError)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7  # noqa: ASYNC222 - it is short
        await asyncio.gather(*waiting)

    asyncio.run(publish())
    assert len(texts(stream)) == 20
