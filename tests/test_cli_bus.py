"""`dwkernel bus`: what is published is read, once; who is behind is told."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import dwkernel as dw
from dwkernel._native import BusFilter
from dwkernel.bus import Bus
from dwkernel.cli import app
from dwkernel.cli.bus import counting, places, subjects, tailing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Cli

PATIENCE_S = 60.0


class Said(NamedTuple):
    """What a command said."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


class Here:
    """The command line in this process: it costs no start."""

    def __init__(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, command: str, *arguments: object, status: int = 0) -> Said:
        """Run `bus COMMAND STORE …`; `status` is the exit status that it must have."""
        return self.at(self.store, command, *arguments, status=status)

    def at(self, place: object, command: str, *arguments: object, status: int = 0) -> Said:
        self._capfd.readouterr()
        words = ["dwkernel", "bus", *command.split(), str(place), *map(str, arguments)]
        self._monkeypatch.setattr(sys, "argv", words)
        done = app.run()
        said = Said(*self._capfd.readouterr())
        assert done == status, (done, said)
        assert "Traceback" not in said.err
        return said


@pytest.fixture
def store(path: Path, request: pytest.FixtureRequest) -> Path:
    """A store in the memory of this process."""
    return made(path, [f"memory://{request.node.name}-{number}" for number in range(3)])


@pytest.fixture
def disk(path: Path) -> Path:
    """A store that other processes find, too."""
    return made(path, 3)


def made(path: Path, drives: int | list[str]) -> Path:
    with dw.open(path, drives=drives, create=True) as kernel:
        kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    return path


@pytest.fixture
def here(store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(store, monkeypatch, capfd)


@pytest.fixture
def on_disk(disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(disk, monkeypatch, capfd)


@contextlib.contextmanager
def opened(store: Path, name: str = "orders") -> Iterator[Any]:
    with dw.open(store) as kernel:
        yield kernel.bus.stream(name)


def filled(store: Path, count: int, name: str = "orders") -> None:
    with opened(store, name) as stream:
        stream.publish_many(
            [(f"orders.{n % 3}", str(n).encode(), {"n": str(n)}) for n in range(1, count + 1)]
        )


def contents(store: Path, name: str = "orders") -> list[bytes]:
    with opened(store, name) as stream:
        return [message.data for message in stream.replay()]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


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
    assert contents(here.store) == [b"1"]
    assert contents(here.store, "all") == [b"1", b"2"]
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
    with opened(here.store) as stream:
        [one] = stream.replay()
    assert (one.subject, one.data) == ("orders.eu", b"\x00\xff binary")
    assert (one.headers, one.key, one.schema) == ({"unit": "C", "eq": "a=b"}, "k", "s")
    assert (one.priority, one.message_id) == (7, "x1")


def test_data_comes_from_standard_input_as_it_is(cli: Cli, disk: Path) -> None:
    for arguments, given in ((["-"], b"a\nb\xff"), ([], b"")):
        done = subprocess.run(
            [*cli.command, "bus", "publish", disk, "orders.eu", *arguments],
            input=given,
            capture_output=True,
            check=True,
        )
        assert done.stdout.startswith(b"orders  ")
    assert contents(disk) == [b"a\nb\xff", b""]


def test_an_id_is_taken_once_and_that_is_said(here: Here) -> None:
    assert here("publish", "orders.eu", "1", "--id", "a").out == "orders  1\n"
    assert here("publish", "orders.eu", "1", "--id", "a").out == "orders  1  (it was there)\n"
    assert here("publish", "orders.eu", "1", "--id", "a", "--json").json[0]["duplicate"]
    assert contents(here.store) == [b"1"]


def test_a_delayed_message_is_told_of_and_comes_later(here: Here) -> None:
    assert here("publish", "orders.eu", "late", "--delay", "1ms").out == "orders  in 1ms\n"
    here("publish", "orders.eu", "later", "--delay", "1h")
    with opened(here.store) as stream:
        until(lambda: stream.status().messages)
        assert [message.data for message in stream.replay()] == [b"late"]
    assert "orders: 1 message more, not due yet" in here("topics").err


# --- Lines ----------------------------------------------------------------------------------------


def test_each_line_is_a_message_as_it_is(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "lines"
    data.write_bytes(b"one\r\n\n\ttwo \xff\x00 \nthree")
    told = here("publish", "orders.x", f"@{data}", "--lines", "-H", "a=b", "--json").json
    assert (told["lines"], told["published"], told["last_sequence"]) == (4, 4, 4)
    assert contents(here.store) == [b"one", b"", b"\ttwo \xff\x00 ", b"three"]


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
    with opened(here.store, "short") as stream:
        for _ in range(3):
            stream.publish_many([("lines", b"somebody else's")] * 500)
    data.write_bytes(b"\n".join(wanted))
    told = here("publish", *run, "--json").json
    assert (told["skipped"], told["published"], told["duplicates"]) == (1234, 1766, 0)
    # Another prefix is another run.
    assert here("publish", *run[:-1], "other", "--json").json["published"] == 3000
    found = [line for line in contents(here.store, "short") if line != b"somebody else's"]
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
    before = len(contents(on_disk.store))
    done = subprocess.run(
        [*cli.command, *map(str, command), "--json"], input=lines, capture_output=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["skipped"] + told["published"] + told["duplicates"] == 20_000
    assert told["published"] == 20_000 - before
    assert contents(on_disk.store) == lines.splitlines()


def test_a_line_that_is_too_long_is_told_with_how_far_it_came(here: Here, tmp_path: Path) -> None:
    data = tmp_path / "lines"
    data.write_bytes(b"x\n" * 700 + bytes(2 << 20))
    said = here("publish", "orders.x", f"@{data}", "--lines", status=2).err
    assert "bus.message_size" in said
    assert "lines up to 500 are published" in said
    assert contents(here.store) == [b"x"] * 500


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_what_became_of_the_lines(cli: Cli, disk: Path) -> None:
    command = ["bus", "publish", disk, "orders.x", "--lines", "--id-prefix", "p"]
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


# --- Reading --------------------------------------------------------------------------------------


def test_tail_shows_the_last_that_are_wanted_as_a_twin_says(here: Here) -> None:
    chance = random.Random(7)
    filled(here.store, 900)
    with opened(here.store) as stream:
        stream.purge(subject="orders.1")
        stream.purge(up_to=100)
        stream.publish_many([("orders.rare", str(n).encode()) for n in range(901, 904)])
        there = list(stream.replay())
    for _ in range(25):
        count = chance.choice([0, 1, 2, 7, 100, 5000])
        pattern = chance.choice(["orders.>", "orders.0", "orders.rare", "orders.none"])
        least = chance.choice([0, 850, 902])
        options = ["-n", count, "-s", pattern, "--filter", f"headers.n >= {least}", "--json"]
        wanted = [
            one.sequence
            for one in there
            if subjects.matches(pattern, one.subject) and int(one.headers.get("n", -1)) >= least
        ]
        shown = [one["sequence"] for one in here("tail", "orders", *options).lines]
        assert shown == (wanted[-count:] if count else [])


def test_tail_holds_no_more_than_it_shows_and_reads_no_more_than_it_must(store: Path) -> None:
    filled(store, 900)
    with opened(store) as stream:
        reads: list[int] = []

        class Counting:
            def status(self) -> Any:
                return stream.status()

            def replay(self, from_sequence: int) -> Any:
                reads.append(from_sequence)
                return stream.replay(from_sequence=from_sequence)

        watched: Any = Counting()
        found = list(tailing._last(watched, 10, subjects.Wanted()))
        assert [one.sequence for one in found] == list(range(891, 901))
        assert reads == [891]


def test_a_message_in_a_pipe_is_one_line_whatever_is_in_it(here: Here) -> None:
    with opened(here.store) as stream:
        stream.publish("orders.a", b"zwei\nZeilen\tund \x1b[31m", headers={"h": "a\tb"})
        stream.publish("orders.b", "zwei\nZeilen\tund ä".encode())
        stream.publish("orders.c", bytes(range(100)))
    rows = here("tail", "orders").rows
    assert [row[1:3] for row in rows] == [["1", "orders.a"], ["2", "orders.b"], ["3", "orders.c"]]
    assert rows[0][3] == "h=a\\tb"
    assert rows[0][4] == "zwei\\nZeilen\\tund \\x1b[31m"
    assert rows[1][4] == "zwei\\nZeilen\\tund ä"
    assert rows[2][4] == f"{bytes(range(24)).hex()}… (100 B)"
    whole = here("tail", "orders", "--json").lines
    assert whole[1]["data"] == "zwei\nZeilen\tund ä"
    assert whole[0]["data"].endswith("\x1b[31m")
    assert whole[2]["size"] == 100
    assert "data" in whole[2]
    with opened(here.store) as stream:
        stream.publish("orders.d", b"\xff")
    assert here("tail", "orders", "-n", 1, "--json").json["data_base64"] == "/w=="


def on_a_terminal(cli: Cli, width: int, *arguments: object) -> list[str]:
    """Run a command on a terminal; return the lines that it showed, without colours."""
    master, end = pty.openpty()
    environment = {**cli.environment(), "COLUMNS": str(width), "TERM": "xterm"}
    command = [*cli.command, *map(str, arguments)]
    with subprocess.Popen(command, stdout=end, stderr=subprocess.DEVNULL, env=environment) as one:
        os.close(end)
        shown = b""
        while select.select([master], [], [], 60)[0]:
            with contextlib.suppress(OSError):
                if piece := os.read(master, 65536):
                    shown += piece
                    continue
            break
        assert one.wait(60) == 0
    os.close(master)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).splitlines()


def test_a_line_on_a_terminal_fits_and_moves_no_cursor(cli: Cli, disk: Path) -> None:
    with opened(disk) as stream:
        stream.publish(
            "orders.ä", "\x9bq".encode() + b"x" * 500, headers={"trace": "y" * 40 + "\x9b"}
        )
        stream.publish(f"orders.{'long.' * 30}subject", ("ü" * 300).encode())
    for width in (60, 80, 120):
        lines = on_a_terminal(cli, width, "bus", "tail", disk, "orders")
        assert len(lines) == 2
        assert max(map(len, lines)) <= width
        assert "\x9b" not in "".join(lines)
        assert "\\x9b" in lines[0]
        assert "trace=y" in lines[0]
        assert "xxxx" in lines[0]
    [line, _] = on_a_terminal(cli, 60, "bus", "tail", disk, "orders", "--full")[:2]
    assert "x" * 20 in line


def test_follow_shows_what_others_publish_meanwhile(cli: Cli, on_disk: Here) -> None:
    filled(on_disk.store, 3)
    options = ["-n", 1, "--follow", "--every", "200ms", "--json", "-s", "orders.*"]
    with started(cli, "tail", on_disk.store, "orders", *options) as following:
        assert following.stdout
        assert json.loads(following.stdout.readline())["sequence"] == 3
        # Commands wait for each other; a program tries again, as the error says that it may.
        on_disk("publish", "orders.a", "from a command")
        assert json.loads(following.stdout.readline())["data"] == "from a command"
        on_disk("publish", "orders.a.b", "not wanted")
        on_disk("publish", "orders.c", "wanted")
        assert json.loads(following.stdout.readline())["data"] == "wanted"
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130


def test_follow_says_that_somebody_writes_and_waits_for_the_end(cli: Cli, on_disk: Here) -> None:
    with dw.open(on_disk.store) as kernel:
        options = ["--follow", "--every", "20ms"]
        with started(cli, "tail", on_disk.store, "orders", *options) as following:
            assert following.stderr
            assert following.stdout
            said = following.stderr.readline().decode()
            assert f"process {os.getpid()}" in said
            assert "Waiting until it lets go" in said
            kernel.bus.stream("orders").publish("orders.a", b"meanwhile")
            kernel.close()
            assert following.stdout.readline().endswith(b"\tmeanwhile\n")
            following.terminate()
            following.communicate()


def test_a_store_that_a_program_writes_to_is_told_of_with_what_to_do(here: Here) -> None:
    with dw.open(here.store):
        for command in (["topics"], ["tail", "orders"], ["publish", "orders.a", "x"], ["lag"]):
            said = here(*command, status=1).err
            assert f"process {os.getpid()}" in said
            assert "ask again when that process has ended, or ask inside it" in said
        error = here("tail", "orders", "--json", status=1).json["error"]
        assert (error["code"], error["retryable"]) == ("store.locked", True)


def test_many_may_read_a_store_at_a_time(here: Here) -> None:
    filled(here.store, 3)
    with dw.open(here.store, read_only=True):
        assert len(here("tail", "orders").rows) == 3
        assert here("topics", "--json").json[0]["messages"] == 3
        assert "store.locked" in here("publish", "orders.a", "x", status=1).err


def test_reading_commands_change_nothing(on_disk: Here) -> None:
    filled(on_disk.store, 5)
    with opened(on_disk.store) as stream:
        stream.consumer("c", create=True)

    def files() -> dict[str, tuple[int, int]]:
        return {
            str(file): (file.stat().st_size, file.stat().st_mtime_ns)
            for file in on_disk.store.rglob("*")
            if file.is_file() and "journal" in str(file)
        }

    before = files()
    assert before
    for command in (["topics"], ["tail", "orders"], ["replay", "orders"], ["consumers"], ["lag"]):
        on_disk(*command)
    on_disk("topics", "--subjects")
    on_disk("dead", "orders")
    assert files() == before


def test_who_stops_reading_ends_the_command_quietly(cli: Cli, disk: Path) -> None:
    filled(disk, 1000)
    for command in (["replay", disk, "orders"], ["tail", disk, "orders", "-n", 1000]):
        with started(cli, *command) as reading:
            assert reading.stdout
            assert reading.stderr
            reading.stdout.readline()
            reading.stdout.close()
            assert reading.stderr.read() == b""
            assert reading.wait(60) == 1


# --- Replay ---------------------------------------------------------------------------------------


def test_replay_prints_the_part_that_is_asked_for(here: Here) -> None:
    filled(here.store, 30)
    with opened(here.store) as stream:
        middle = list(stream.replay())[-1].published_at
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
    assert middle


def test_a_replay_into_another_stream_keeps_every_field_and_adds_nothing_twice(here: Here) -> None:
    with opened(here.store) as stream:
        fields = {"headers": {"a": "b"}, "key": "k", "schema": "s", "priority": 9}
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
    with opened(here.store) as stream:
        source = list(stream.replay())
    with opened(here.store, "copy") as stream:
        copies = list(stream.replay())
    assert [one.data for one in copies] == [one.data for one in source]
    assert {one.subject for one in copies} == {"old.orders.a", "old.orders.b"}
    first = copies[0]
    assert (first.headers, first.key, first.schema, first.priority) == ({"a": "b"}, "k", "s", 9)
    assert (first.correlation_id, first.message_id) == ("a" * 32, "orders:1")
    told = here("replay", *run, "--again", "--from-sequence", 1501, "--json").json
    assert told["published"] == 1
    assert len(contents(here.store, "copy")) == 1502


def test_a_replay_goes_into_another_store(here: Here, tmp_path: Path) -> None:
    filled(here.store, 20)
    other = tmp_path / "other"
    with dw.open(other, drives=1, create=True) as kernel:
        kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    run = ["orders", "--into", "orders", "--into-store", other]
    assert here("replay", *run, "--json").json["published"] == 20
    assert here("replay", *run, "--json").json["published"] == 0
    assert contents(other) == contents(here.store)


# --- Consumers ------------------------------------------------------------------------------------


def test_a_consumer_is_made_listed_paused_resumed_and_deleted(here: Here) -> None:
    filled(here.store, 6)
    options = ["--ack-wait", "5s", "--max-deliver", 3, "--backoff", "1s", "--backoff", "10s"]
    options += ["--max-ack-pending", 7, "-s", "orders.1", "--filter", "size < 9", "--start", 2]
    options += ["--priority-window", 4, "--no-dead-letters", "--ack", "explicit"]
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
    with opened(here.store) as stream:
        assert stream.consumer("billing").fetch(9, timeout=0) == []
    here("consumer resume", "orders", "billing")
    with opened(here.store) as stream:
        fetched = stream.consumer("billing").fetch(9, timeout=0)
        assert [message.sequence for message in fetched] == [4]
    here("consumer delete", "orders", "billing")
    assert [one["name"] for one in here("consumers", "orders", "--json").json] == ["late"]
    assert "stream.consumer_not_found" in here("consumer pause", "orders", "no", status=1).err


def test_lag_says_who_is_behind_also_by_its_exit_status(here: Here) -> None:
    filled(here.store, 50)
    with opened(here.store) as stream:
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
    filled(here.store, 3)
    with opened(here.store) as stream:
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
    with opened(here.store) as stream:
        again = stream.consumer("c").fetch(9, timeout=5)
        assert {message.deliveries for message in again} == {1}
        assert sorted(message.sequence for message in again) == [1, 2, 3]


# --- Subjects -------------------------------------------------------------------------------------


def test_subjects_are_counted_and_the_others_are_not_lost(here: Here) -> None:
    with opened(here.store) as stream:
        rows = [(f"orders.{n}", b"x" * n) for n in range(1, 11) for _ in range(n)]
        stream.publish_many(rows)
    found = here("topics", "--subjects", "--top", 3, "--json").json["orders"]
    assert [(one["subject"], one["messages"], one["bytes"]) for one in found["subjects"]] == [
        ("orders.10", 10, 100),
        ("orders.9", 9, 81),
        ("orders.8", 8, 64),
    ]
    assert (found["others"], found["other_bytes"]) == (28, sum(n * n for n in range(1, 8)))
    assert found["is_exact"]
    rows_shown = here("topics", "orders.7", "--subjects").rows
    assert rows_shown == [["orders", "orders.7", "7", "49 B"]]


def test_counting_subjects_is_bounded_and_says_when_it_is_not_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "SUBJECTS_MAX", 20)
    chance = random.Random(3)
    names = [f"s.{chance.randrange(500)}" for _ in range(3000)] + ["s.often"] * 1000
    chance.shuffle(names)
    messages: Any = (SimpleNamespace(subject=name, data=b"xy") for name in names)
    held: list[int] = []
    keep = counting._keep

    def watched(counts: dict[str, list[int]], limit: int, result: Any) -> Any:
        held.append(len(counts))
        return keep(counts, limit, result)

    monkeypatch.setattr(counting, "_keep", watched)
    found = counting.count_subjects(messages, subjects.Wanted(), 5, None)
    assert max(held) <= 21
    assert not found.is_exact
    assert sum(one.messages for one in found.subjects) + found.others == len(names)
    assert sum(one.bytes for one in found.subjects) + found.other_bytes == 2 * len(names)
    assert found.subjects[0].subject == "s.often"
    assert found.subjects[0].messages <= 1000


def test_patterns_mean_what_the_bus_means() -> None:
    chance = random.Random(11)

    def token(wild: str) -> str:
        return chance.choice(["a", "b", wild])

    with Bus() as bus:
        for _ in range(400):
            pattern = ".".join(token("*") for _ in range(chance.randrange(1, 4)))
            pattern += chance.choice(["", ".>"])
            subject = ".".join(token("c") for _ in range(chance.randrange(1, 5)))
            with bus.subscribe(pattern, policy="drop_newest"):
                matched = bus.publish(subject, b"").matched == 1
            assert subjects.matches(pattern, subject) == matched, (pattern, subject)


def test_two_patterns_overlap_if_a_subject_fits_both() -> None:
    tokens = ["a", "b", "*"]
    patterns = [[one] for one in tokens] + [[one, two] for one in tokens for two in tokens]
    patterns += [[*pattern, ">"] for pattern in patterns] + [[">"]]
    plain = [["a"], ["b"], ["c"]]
    plain += [[*one, two] for one in plain for two in "abc"]
    plain += [[*one, two] for one in plain for two in "ab"]
    every = {".".join(one) for one in plain}
    for one in patterns:
        for other in patterns:
            left, right = ".".join(one), ".".join(other)
            fits = any(
                subjects.matches(left, name) and subjects.matches(right, name) for name in every
            )
            assert subjects.overlap(left, right) == fits, (left, right)


def test_a_filter_judges_messages_of_others_as_ours(kernel: dw.Kernel) -> None:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    stream.publish("s.a", b"12345", headers={"unit": "C"}, key="k", schema="x", priority=3)
    [ours] = stream.replay()
    names = ("subject", "data", "headers", "principal", "schema", "key", "priority")
    theirs = SimpleNamespace(**{name: getattr(ours, name) for name in names})
    for text in (
        "headers.unit == 'C'",
        "headers.unit == 'F'",
        "size > 4 and size < 6",
        "priority == 3",
        "key == 'k' and schema == 'x'",
        "token(2) == 'a'",
        "token(2) == 'b'",
        "exists principal",
        f"principal == '{ours.principal}'",
    ):
        assert BusFilter(text).accepts(ours) == BusFilter(text).accepts(theirs), text
    assert BusFilter("headers.unit == 'C'").accepts(ours)
    assert not BusFilter("headers.unit == 'F'").accepts(ours)


def test_watch_tells_rates_of_what_others_publish(cli: Cli, on_disk: Here) -> None:
    options = ["--watch", "--every", "50ms", "--json"]
    with started(cli, "topics", on_disk.store, *options) as watching:
        assert watching.stdout
        assert "messages_per_s" not in json.loads(watching.stdout.readline())[0]
        on_disk("publish", "orders.a", "x")
        end = time.monotonic() + PATIENCE_S
        while not json.loads(watching.stdout.readline())[0].get("messages_per_s"):
            assert time.monotonic() < end
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130


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
    filled(here.store, 5)
    told = here("replay", "orders", "--into", "orders", "--into-store", url, "--json").json
    assert told["published"] == 5
    assert kernel.bus.stream("orders").status().messages == 6
    assert set(asked) == {url}
    assert "broker.url" in here.at("http://host", "topics", status=2).err


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
    filled(here.store, 700)
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
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = dw.open, 0

    def open_late(*arguments: Any, **options: Any) -> dw.Kernel:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise dw.errors.new("store.locked", "held", pid=1, program="dwkernel")
        return real(*arguments, **options)

    monkeypatch.setattr(dw, "open", open_late)
    with places._store(str(store), writes=False, force=False) as kernel:
        assert kernel.bus.streams()
    assert tries == 3

    def held(*_: Any, **__: Any) -> dw.Kernel:
        raise dw.errors.new("store.locked", "held", pid=1, program="server", since=1)

    monkeypatch.setattr(dw, "open", held)
    start = time.monotonic()
    with pytest.raises(dw.errors.Unavailable):
        places._store(str(store), writes=False, force=False)
    assert time.monotonic() - start < places._PATIENCE_S
