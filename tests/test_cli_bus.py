"""`dwkernel bus`: what is published is there, once, however often a run is repeated."""

from __future__ import annotations

import contextlib
import json
import random
import re
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel.cli.bus.shown import plain_message
from expect import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Cli, Here
    from dwkernel.bus import Message


@contextlib.contextmanager
def started(cli: Cli, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that ends by itself never: a test that fails ends it."""
    with cli.start("bus", *arguments, **options) as command:
        try:
            yield command
        finally:
            command.kill()


# --- Streams and messages -------------------------------------------------------------------------


def test_a_stream_from_creation_to_deletion(here: Here) -> None:
    limits = ["--max-age", "7d", "--max-bytes", "1 GiB", "--max-messages", 100, "--discard", "new"]
    here("create", "mail", "-s", "mail.*", "-s", "post.>", *limits, "--keep-last-per-key")
    assert here("publish", "mail.a", "hello").out == "mail  1\n"
    told = {one["name"]: one for one in here("topics", "--json").json}
    assert set(told) == {"mail", "orders"}
    mail = told["mail"]
    assert (mail["messages"], mail["last_sequence"]) == (1, 1)
    assert mail["subjects"] == ["mail.*", "post.>"]
    assert mail["first_at"] == mail["last_at"]
    assert mail["settings"] == {
        "max_age_s": 7 * 86_400,
        "max_bytes": 1 << 30,
        "max_messages": 100,
        "discard": "new",
        "retention": "limits",
        "keep_last_per_key": True,
        "duplicate_window_s": 120.0,
    }
    row = here("topics", "post.>").rows
    assert [one[0] for one in row] == ["mail"]
    assert row[0][-1] == "7 d, 1.0 GiB, 100 messages, refuses new ones, last of each key"
    assert here("delete", "mail", "--json").json == {"deleted": "mail", "messages": 1}
    assert [one["name"] for one in here("topics", "--json").json] == ["orders"]
    assert "stream.not_found" in here("tail", "mail", status=1).err


def test_a_message_goes_to_each_stream_that_takes_it_or_to_the_one_that_is_named(
    here: Here,
) -> None:
    here("create", "all", "--subject", ">")
    both = here("publish", "orders.eu", "1", "--json").json
    assert {(one["stream"], one["sequence"]) for one in both} == {("all", 1), ("orders", 1)}
    assert here("publish", "orders.eu", "2", "--stream", "all").out == "all  2\n"
    assert here.contents() == [b"1"]
    assert here.contents("all") == [b"1", b"2"]
    here("delete", "all")
    assert "stream.subject" in here("publish", "mail.a", "x", status=2).err
    # Which of two is to keep it for later cannot be guessed.
    here("create", "more", "--subject", "orders.*")
    said = here("publish", "orders.eu", "x", "--delay", "1h", status=2).err
    assert "more, orders take orders.eu: say which with --stream" in said
    assert here("publish", "orders.eu", "x", "--delay", "1h", "--stream", "more").out.startswith(
        "more  in 1h"
    )


def test_every_field_is_published(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"\x00\xff binary")
    given = ["-H", "unit=C", "-H", "eq=a=b", "--key", "k", "--schema", "s", "--priority", 7]
    here("publish", "orders.eu", f"@{data}", *given, "--id", "x1")
    with here.opened() as stream:
        [one] = stream.replay()
    assert (one.subject, one.data) == ("orders.eu", b"\x00\xff binary")
    assert (one.headers, one.key, one.schema) == ({"unit": "C", "eq": "a=b"}, "k", "s")
    assert (one.priority, one.message_id) == (7, "x1")


def test_data_comes_from_standard_input_as_it_is(cli: Cli, on_disk: Here) -> None:
    for arguments, given in ((["-"], b"a\nb\xff"), ([], b"")):
        done = subprocess.run(
            [*cli.command, "bus", "publish", on_disk.store, "orders.eu", *arguments],
            input=given,
            capture_output=True,
            check=True,
        )
        assert done.stdout.startswith(b"orders  ")
    assert on_disk.contents() == [b"a\nb\xff", b""]


def test_an_id_is_taken_once_and_that_is_said(here: Here) -> None:
    assert here("publish", "orders.eu", "1", "--id", "a").out == "orders  1\n"
    assert here("publish", "orders.eu", "1", "--id", "a").out == "orders  1  (it was there)\n"
    assert here("publish", "orders.eu", "1", "--id", "a", "--json").json[0]["duplicate"]
    assert here.contents() == [b"1"]


def test_a_delayed_message_is_told_of_and_comes_later(here: Here) -> None:
    assert here("publish", "orders.eu", "late", "--delay", "1ms").out == "orders  in 1ms\n"
    here("publish", "orders.eu", "later", "--delay", "1h")
    with here.opened() as stream:
        until(lambda: stream.status().messages)
        assert [message.data for message in stream.replay()] == [b"late"]
    assert "orders: 1 message more, not due yet" in here("topics").err


# --- Lines ----------------------------------------------------------------------------------------


def test_each_line_is_a_message_as_it_is(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "lines"
    data.write_bytes(b"one\r\n\n\ttwo \xff\x00 \nthree")
    told = here("publish", "orders.x", f"@{data}", "--lines", "-H", "a=b", "--json").json
    assert (told["lines"], told["published"], told["last_sequence"]) == (4, 4, 4)
    assert here.contents() == [b"one", b"", b"\ttwo \xff\x00 ", b"three"]


def test_a_repeated_run_of_lines_adds_nothing_however_late(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "lines"
    wanted = [b"%d" % n for n in range(3000)]
    data.write_bytes(b"\n".join(wanted[:1234]))
    # Its ids are forgotten at once: only what is in the stream tells.
    here("create", "short", "-s", "lines", "--duplicate-window", "0s")
    run = ["lines", f"@{data}", "--lines", "--id-prefix", "file"]
    assert here("publish", *run, "--json").json["published"] == 1234
    again = here("publish", *run)
    assert "going on behind line 1,234" in again.err
    assert "0 messages published" in again.out
    with here.opened("short") as stream:
        for _ in range(3):
            stream.publish_many([("lines", b"somebody else's")] * 500)
    data.write_bytes(b"\n".join(wanted))
    told = here("publish", *run, "--json").json
    assert (told["skipped"], told["published"], told["duplicates"]) == (1234, 1766, 0)
    # Another prefix is another run.
    assert here("publish", *run[:-1], "other", "--json").json["published"] == 3000
    found = [line for line in here.contents("short") if line != b"somebody else's"]
    assert found == [*wanted, *wanted]


def test_lines_of_a_killed_run_are_there_once_after_the_next(cli: Cli, on_disk: Here) -> None:
    command = ["bus", "publish", on_disk.store, "orders.x", "--lines", "--id-prefix", "run"]
    lines = b"".join(b"%d\n" % n for n in range(20_000))
    with started(cli, *command[1:], stdin=subprocess.PIPE) as publishing:
        assert publishing.stdin
        publishing.stdin.write(lines[: len(lines) // 2])
        publishing.stdin.flush()
        time.sleep(0.3 + random.random() / 2)
        publishing.kill()
        publishing.communicate()
    before = len(on_disk.contents())
    done = subprocess.run(
        [*cli.command, *map(str, command), "--json"], input=lines, capture_output=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["skipped"] + told["published"] + told["duplicates"] == 20_000
    assert told["published"] == 20_000 - before
    assert on_disk.contents() == lines.splitlines()


def test_a_line_that_is_too_long_is_told_with_how_far_it_came(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "lines"
    data.write_bytes(b"x\n" * 700 + bytes(2 << 20))
    said = here("publish", "orders.x", f"@{data}", "--lines", status=2).err
    assert "bus.message_size" in said
    assert "lines up to 500 are published" in said
    assert here.contents() == [b"x"] * 500


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_what_became_of_the_lines(cli: Cli, on_disk: Here) -> None:
    command = ["bus", "publish", on_disk.store, "orders.x", "--lines", "--id-prefix", "p"]
    with started(cli, *command[1:], stdin=subprocess.PIPE) as publishing:
        assert publishing.stdin
        assert publishing.stderr
        for _ in range(100):
            publishing.stdin.write(b"line\n" * 500)
            publishing.stdin.flush()
        # In a pipe it says now and then how far it is.
        while not select.select([publishing.stderr], [], [], 0.1)[0]:
            publishing.stdin.write(b"line\n" * 500)
            publishing.stdin.flush()
        publishing.send_signal(signal.SIGINT)
        said = publishing.stderr.read().decode()
        assert publishing.wait(60) == 130
    assert re.search(r"publish: stopped at [\d,]+ messages after ", said)
    assert "with the same --id-prefix the next run goes on behind it" in said


# --- Replay ---------------------------------------------------------------------------------------


def test_replay_prints_the_part_that_is_asked_for(here: Here) -> None:
    here.fill(30)
    with here.opened() as stream:
        stream.publish_many([("orders.9", str(n).encode()) for n in range(31, 41)])
        times = {m.sequence: m.published_at.isoformat() for m in stream.replay()}

    def shown(*options: object) -> list[int]:
        return [one["sequence"] for one in here("replay", "orders", *options).lines]

    assert shown() == list(range(1, 41))
    assert shown("--from-sequence", 38) == [38, 39, 40]
    assert shown("--from-sequence", 5, "--to-sequence", 7) == [5, 6, 7]
    assert shown("--from-sequence", 3, "-s", "orders.1", "--to-sequence", 9) == [4, 7]
    assert shown("--filter", "headers.n == 12") == [12]
    assert shown("--from-time", times[31]) == list(range(31, 41))
    assert shown("--to-time", times[31]) == [s for s in range(1, 31) if times[s] < times[31]]
    assert shown("--from-time", times[31], "--to-time", times[31]) == []
    assert shown("--from-time", "1h") == list(range(1, 41))
    assert shown("--from-time", "2100-01-01") == []
    # Both bounds hold.
    assert shown("--from-sequence", 1, "--from-time", times[31]) == list(range(31, 41))


def test_a_replay_into_another_stream_keeps_every_field_and_adds_nothing_twice(here: Here) -> None:
    with here.opened() as stream:
        fields: dict[str, Any] = {"headers": {"a": "b"}, "key": "k", "schema": "s", "priority": 9}
        stream.publish("orders.a", b"\x00\xff", correlation_id="a" * 32, **fields)
        for begin in (0, 750):
            stream.publish_many([("orders.b", str(n).encode()) for n in range(begin, begin + 750)])
    # Its ids are forgotten at once: only what is in the stream tells.
    here("create", "copy", "-s", "old.>", "--duplicate-window", "0s")
    run = ["orders", "--into", "copy", "--as", "old.{subject}"]
    told = here("replay", *run, "--to-sequence", 700, "--json").json
    assert (told["published"], told["last_sequence"], told["behind"]) == (700, 700, 0)
    again = here("replay", *run, "--to-sequence", 700)
    assert "going on behind 700, which a run before has published" in again.err
    assert "0 messages" in again.out
    told = here("replay", *run, "--json").json
    assert (told["published"], told["behind"]) == (801, 700)
    with here.opened() as stream:
        source = list(stream.replay())
    with here.opened("copy") as stream:
        copies = list(stream.replay())
    assert [one.data for one in copies] == [one.data for one in source]
    assert {one.subject for one in copies} == {"old.orders.a", "old.orders.b"}
    first = copies[0]
    assert (first.headers, first.key, first.schema, first.priority) == ({"a": "b"}, "k", "s", 9)
    assert (first.correlation_id, first.message_id) == ("a" * 32, "orders:1")
    told = here("replay", *run, "--again", "--from-sequence", 1501, "--json").json
    assert told["published"] == 1
    assert len(here.contents("copy")) == 1502


def test_a_stopped_replay_says_how_it_goes_on(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.fill(10)
    real = plain_message

    def stop(message: Message) -> dict[str, Any]:
        if message.sequence == 5:
            raise KeyboardInterrupt
        return real(message)

    monkeypatch.setattr("dwkernel.cli.bus.replaying.plain_message", stop)
    said = here("replay", "orders", status=130)
    assert [one["sequence"] for one in said.lines] == [1, 2, 3, 4]
    assert "the last was 4: --from-sequence 5 goes on behind it" in said.err


def test_a_replay_goes_into_another_store(here: Here, tmp_path: Path) -> None:
    here.fill(20)
    other = tmp_path / "other"

    def streams() -> Any:
        return dw.open(other, drives=[f"memory://{other}"], create="if_missing")

    with streams() as kernel:
        kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    run = ["orders", "--into", "orders", "--into-store", other]
    assert here("replay", *run, "--json").json["published"] == 20
    assert here("replay", *run, "--json").json["published"] == 0
    with streams() as kernel:
        copies = [message.data for message in kernel.bus.stream("orders").replay()]
    assert copies == here.contents()
