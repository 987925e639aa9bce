"""`dwkernel bus`: who looks sees what is there, and keeps nobody out for long."""

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
import time
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import dwkernel as dw
from dwkernel._native import BusFilter
from dwkernel.bus import Bus
from dwkernel.cli.bus import counting, subjects, tailing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from conftest import Cli, Here

PATIENCE_S = 60.0


@contextlib.contextmanager
def started(cli: Cli, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that ends by itself never: a test that fails ends it."""
    with cli.start("bus", *arguments, **options) as command:
        try:
            yield command
        finally:
            command.kill()


# --- Reading --------------------------------------------------------------------------------------


def test_tail_shows_the_last_that_are_wanted_as_a_twin_says(here: Here) -> None:
    chance = random.Random(7)
    here.fill(900)
    with here.opened() as stream:
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


def test_tail_holds_no_more_than_it_shows_and_reads_no_more_than_it_must(here: Here) -> None:
    here.fill(900)
    with here.opened() as stream:
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
    with here.opened() as stream:
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
    with here.opened() as stream:
        stream.publish("orders.d", b"\xff")
    assert here("tail", "orders", "-n", 1, "--json").json["data_base64"] == "/w=="


def on_a_terminal(
    cli: Cli, width: int, *arguments: object, stdout: IO[bytes] | None = None
) -> list[str]:
    """Run a command on a terminal; return the lines that it showed, without colours.

    With `stdout` its output goes there, and the terminal shows what it says besides.
    """
    master, end = pty.openpty()
    environment = {**cli.environment(), "COLUMNS": str(width), "TERM": "xterm"}
    command = [*cli.command, *map(str, arguments)]
    out, err = (end, subprocess.DEVNULL) if stdout is None else (stdout, end)
    with subprocess.Popen(command, stdout=out, stderr=err, env=environment) as one:
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


def test_a_line_on_a_terminal_fits_and_moves_no_cursor(cli: Cli, on_disk: Here) -> None:
    with on_disk.opened() as stream:
        stream.publish(
            "orders.ä", "\x9bq".encode() + b"x" * 500, headers={"trace": "y" * 40 + "\x9b"}
        )
        stream.publish(f"orders.{'long.' * 30}subject", ("ü" * 300).encode())
    for width in (60, 80, 120):
        lines = on_a_terminal(cli, width, "bus", "tail", on_disk.store, "orders")
        assert len(lines) == 2
        assert max(map(len, lines)) <= width
        assert "\x9b" not in "".join(lines)
        assert "\\x9b" in lines[0]
        assert "trace=y" in lines[0]
        assert "xxxx" in lines[0]
    [line, _] = on_a_terminal(cli, 60, "bus", "tail", on_disk.store, "orders", "--full")[:2]
    assert "x" * 20 in line


def test_a_replay_into_a_file_is_whole_where_a_bar_is_shown_beside(
    cli: Cli, on_disk: Here, tmp_path: Path
) -> None:
    on_disk.fill(50)
    with (tmp_path / "orders.jsonl").open("wb") as file:
        shown = on_a_terminal(cli, 80, "bus", "replay", on_disk.store, "orders", stdout=file)
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, 51))
    assert "sequence" not in "".join(shown)


def test_follow_shows_what_others_publish_meanwhile(cli: Cli, on_disk: Here) -> None:
    on_disk.fill(3)
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
    here.fill(3)
    with dw.open(here.store, read_only=True):
        assert len(here("tail", "orders").rows) == 3
        assert here("topics", "--json").json[0]["messages"] == 3
        assert "store.locked" in here("publish", "orders.a", "x", status=1).err


def test_reading_commands_change_nothing(on_disk: Here) -> None:
    on_disk.fill(5)
    with on_disk.opened() as stream:
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


def test_who_stops_reading_ends_the_command_quietly(cli: Cli, on_disk: Here) -> None:
    on_disk.fill(1000)
    for command in (
        ["replay", on_disk.store, "orders"],
        ["tail", on_disk.store, "orders", "-n", 1000],
    ):
        with started(cli, *command) as reading:
            assert reading.stdout
            assert reading.stderr
            reading.stdout.readline()
            reading.stdout.close()
            assert reading.stderr.read() == b""
            assert reading.wait(60) == 1


# --- Subjects -------------------------------------------------------------------------------------


def test_subjects_are_counted_and_the_others_are_not_lost(here: Here) -> None:
    with here.opened() as stream:
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
