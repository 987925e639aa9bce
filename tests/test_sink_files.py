"""Files of messages: every message, once, in order, whatever is killed or full in between."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from dwkernel import errors, sinks
from dwkernel.sinks.tail import backward, whole_bytes
from expect import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dwkernel.bus import Message, Stream

PATIENCE_S = 30.0
CURRENT = "current.jsonl"


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


@pytest.fixture
def stream(kernel: dw.Kernel) -> Stream:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    stream.publish_many([(f"s.{number % 2}", str(number).encode()) for number in range(50)])
    return stream


@pytest.fixture
def messages(stream: Stream) -> list[Message]:
    return list(stream.replay())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def paths(out: Path) -> list[Path]:
    """Return the files, the oldest first."""
    rotated = sorted(out.glob("0*.jsonl"), key=lambda path: path.name.split("-")[1])
    return [*rotated, *out.glob(CURRENT)]


def lines(out: Path) -> list[dict[str, Any]]:
    texts = [path.read_text(encoding="utf-8") for path in paths(out)]
    return [json.loads(line) for text in texts for line in text.split("\n")[:-1]]


def sequences(out: Path) -> list[int]:
    return [int(line["sequence"]) for line in lines(out)]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(errors.Invalid) as caught:
        call()
    assert caught.value.code == "sink.option"
    return str(caught.value)


def deliver(sink: sinks.Sink, messages: list[Message]) -> set[str]:
    outcomes = list(sink.deliver(messages))
    assert len(outcomes) == len(messages)
    return {outcome.kind for outcome in outcomes}


def test_lines_have_all_that_was_sent(kernel: dw.Kernel, out: Path) -> None:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    odd = 'a "quoted"\nkey é\u2028'
    json_headers = {"content-type": "application/json", "ü": "ö"}
    with kernel.bus.group() as group:
        fields: dict[str, Any] = {"priority": 7, "correlation_id": "f" * 32}
        group.publish("s.a", b'{"n":\r\n1.10}', key=odd, headers=json_headers, **fields)
        group.publish("s.b", "text é\n".encode())
        group.publish("s.c", b"\xff\n")
        group.publish("s.d", b'{"key": "docs/a"}', schema="dwkernel.event.v1")
        group.publish("s.e", b'{"n": NaN}', schema="dwkernel.event.v1")
        group.publish("s.f")
    with sinks.attach(stream, sinks.Files(out), name="c") as pump:
        pump.flush(PATIENCE_S)
    found = lines(out)
    sent = list(stream.replay())
    assert [line["sequence"] for line in found] == [1, 2, 3, 4, 5, 6]
    assert [line["id"] for line in found] == [message.id for message in sent]
    assert [line["subject"] for line in found] == [message.subject for message in sent]
    one = found[0]
    assert (one["key"], one["priority"], one["correlation_id"]) == (odd, 7, "f" * 32)
    assert (one["headers"], one["data"]) == (json_headers, {"n": 1.1})
    assert b'"data":{"n":  1.10}' in (out / CURRENT).read_bytes()
    assert found[1]["text"] == "text é\n"
    assert base64.b64decode(found[2]["base64"]) == b"\xff\n"
    assert (found[3]["data"], found[3]["schema"]) == ({"key": "docs/a"}, "dwkernel.event.v1")
    assert (found[4]["text"], found[5]["text"]) == ('{"n": NaN}', "")
    assert "key" not in found[5]


def test_cloudevents_are_lines_too(stream: Stream, out: Path) -> None:
    for _ in range(2):
        with sinks.attach(stream, sinks.Files(out, format="cloudevents"), name="c") as pump:
            pump.flush(PATIENCE_S)
    found = lines(out)
    assert sequences(out) == list(range(1, 51))
    assert {line["specversion"] for line in found} == {"1.0"}
    assert found[0]["source"] == "/dwkernel/streams/s"
    assert base64.b64decode(found[7]["data_base64"]) == b"7"
    assert "another format" in refused(lambda: sinks.Files(out))


@pytest.mark.parametrize("form", ["jsonl", "cloudevents"])
def test_ids_of_brokers_may_be_anything(messages: list[Message], out: Path, form: Any) -> None:
    names = ["sequence", "subject", "data", "headers", "key", "schema", "priority"]
    names += ["correlation_id", "published_at", "published_ns"]
    fields = {name: getattr(messages[6], name) for name in names}
    odd: Any = SimpleNamespace(**fields, id='a"b\\c\n é ' + "\u00e9" * 60)
    sink = sinks.Files(out, format=form)
    assert deliver(sink, [odd]) == {"taken"}
    sink.close()
    sink = sinks.Files(out, format=form)
    assert deliver(sink, [odd]) == {"taken"}
    sink.close()
    assert [line["id"] for line in lines(out)] == [odd.id]


def test_files_are_rotated_by_size_and_the_oldest_go(stream: Stream, out: Path) -> None:
    sink = sinks.Files(out, rotate_bytes=900, keep=3)
    with sinks.attach(stream, sink, name="c", batch=5) as pump:
        pump.flush(PATIENCE_S)
        found = paths(out)
        assert len(found) == 4
        assert all(path.stat().st_size <= 900 for path in found)
        kept = sequences(out)
        assert kept[0] > 10
        assert kept == list(range(kept[0], 51))
        for path in found[:-1]:
            first = json.loads(path.read_bytes().partition(b"\n")[0])["sequence"]
            assert path.name.startswith(f"{first:020d}-")


def test_files_are_rotated_by_age(messages: list[Message], out: Path) -> None:
    sink = sinks.Files(out, rotate_every="0.4s")
    begin = time.monotonic()
    deliver(sink, messages[:1])
    deliver(sink, messages[1:2])
    assert len(paths(out)) == 1 or time.monotonic() - begin > 0.4
    sink.close()
    # When a file was begun is known after a restart, too.
    sink = sinks.Files(out, rotate_every="0.4s")
    until(lambda: time.monotonic() - begin > 0.5)
    deliver(sink, messages[2:3])
    deliver(sink, messages[3:4])
    assert len(paths(out)) == 2
    sink.close()
    assert sequences(out) == [1, 2, 3, 4]


def test_what_is_there_is_not_written_again(
    messages: list[Message], stream: Stream, out: Path
) -> None:
    sink = sinks.Files(out, rotate_bytes=1000)
    for begin in range(0, 50, 7):
        assert deliver(sink, messages[begin : begin + 7]) == {"taken"}
    assert len(paths(out)) > 5
    for begin, end in ((45, 50), (0, 50), (20, 21)):
        assert deliver(sink, messages[begin:end]) == {"taken"}
    sink.close()
    stream.publish("s.new")
    sink = sinks.Files(out, rotate_bytes=1000)
    assert deliver(sink, list(stream.replay(from_sequence=10))) == {"taken"}
    sink.close()
    assert sequences(out) == list(range(1, 52))
    sink = sinks.Files(out, exactly_once=False)
    assert deliver(sink, messages[49:]) == {"taken"}
    sink.close()
    assert sequences(out)[-1] == 50


def test_a_stream_made_anew_is_another(kernel: dw.Kernel, stream: Stream, out: Path) -> None:
    sink = sinks.Files(out)
    deliver(sink, list(stream.replay()))
    kernel.bus.delete_stream("s")
    again = kernel.bus.stream("s", subjects=["s"], create=True)
    again.publish_many([("s", b"")] * 3)
    for _ in range(2):
        deliver(sink, list(again.replay()))
    sink.close()
    assert sequences(out) == [*range(1, 51), 1, 2, 3]


@pytest.mark.parametrize("tail", [b'{"sequence":51,"id":"x', b"x", bytes(5000), b"\0\n\0\0\n"])
def test_a_torn_end_is_cut_and_nothing_else(
    messages: list[Message], out: Path, tail: bytes
) -> None:
    sink = sinks.Files(out)
    deliver(sink, messages[:3])
    sink.close()
    path = out / CURRENT
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    sink = sinks.Files(out)
    assert path.read_bytes() == whole
    deliver(sink, messages[2:5])
    sink.close()
    assert sequences(out) == [1, 2, 3, 4, 5]
    for cut in (1, len(whole) // 6, len(whole) // 3 - 1):  # within the first line
        path.write_bytes(whole[:cut])
        sink = sinks.Files(out)
        deliver(sink, messages[:2])
        sink.close()
        assert sequences(out) == [1, 2]


def test_damage_in_the_middle_is_left_and_its_message_written_behind(
    messages: list[Message], out: Path
) -> None:
    sink = sinks.Files(out)
    deliver(sink, messages[:3])
    sink.close()
    path = out / CURRENT
    one, two, three = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one + bytes(len(two) - 1) + b"\n" + three)
    sink = sinks.Files(out)
    deliver(sink, messages[:4])
    sink.close()
    found = path.read_bytes().splitlines(keepends=True)
    assert [found[0], found[1], found[2]] == [one, bytes(len(two) - 1) + b"\n", three]
    assert [json.loads(line)["sequence"] for line in found[3:]] == [2, 4]


@pytest.mark.parametrize("content", [b"mine\n", b"mine", b'{"a": 1}\n{"sequence":1,"id":"x"}\n'])
def test_a_file_of_another_is_refused_and_left_alone(out: Path, content: bytes) -> None:
    out.mkdir()
    (out / CURRENT).write_bytes(content)
    assert "not of this sink" in refused(lambda: sinks.Files(out))
    assert (out / CURRENT).read_bytes() == content


def test_a_directory_has_one_sink(out: Path, messages: list[Message]) -> None:
    sink = sinks.Files(out)
    assert "another sink" in refused(lambda: sinks.Files(out))
    # A child that a fork made has the lock's descriptor, and neither writes nor keeps it.
    child = os.fork()
    if child == 0:
        try:
            sink.deliver(messages[:1])
        except errors.DwError:
            signal.pause()
        os._exit(1)
    try:
        assert deliver(sink, messages[:1]) == {"taken"}
        sink.close()
        sinks.Files(out).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with pytest.raises(errors.Unavailable):
        sink.deliver(messages[:1])
    assert sequences(out) == [1]


def test_what_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "can't be written" in refused(lambda: sinks.Files(tmp_path / "file"))
    assert "can't be written" in refused(lambda: sinks.Files(tmp_path / "file" / "under"))
    out = tmp_path / "out"
    (out / CURRENT).mkdir(parents=True)
    assert "can't be written" in refused(lambda: sinks.Files(out))
    (out / CURRENT).rmdir()
    sinks.Files(out).close()  # nothing is held after a refusal
    wrong: list[dict[str, Any]] = [{"format": "xml"}, {"keep": 0}]
    for options in wrong:
        refused(lambda options=options: sinks.Files(out, **options))  # type: ignore[misc]


def test_a_full_disk_holds_everything_back_and_loses_nothing(stream: Stream, out: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = sinks.Files(out)
    # Beyond the limit writes are cut short, then refused: as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with sinks.attach(stream, sink, name="c", batch=4, backoff=["20ms"]) as pump:
            until(lambda: pump.status().failed > 8)
            status = pump.status()
            assert status.state in ("running", "waiting")
            assert str(out) in (status.last_error or "")
            assert os.strerror(errno.EFBIG) in (status.last_error or "")
            written = sequences(out)
            assert 0 < len(written) < 50
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            pump.flush(PATIENCE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sequences(out) == list(range(1, 51))


def test_after_a_failed_sync_another_file_is_written(
    messages: list[Message], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sinks.Files(out)
    real = os.fdatasync
    synced: list[int] = []

    def failing(file: int) -> None:
        inode = os.fstat(file).st_ino
        if len(synced) == 1:
            synced.append(-inode)
            raise OSError(errno.EIO, "the disk is sick")
        assert -inode not in synced, "a failed sync was tried again"
        synced.append(inode)
        real(file)

    monkeypatch.setattr(os, "fdatasync", failing)
    assert deliver(sink, messages[:2]) == {"taken"}
    assert deliver(sink, messages[2:4]) == {"failed"}
    assert deliver(sink, messages[2:6]) == {"taken"}
    sink.close()
    assert len(paths(out)) == 2
    assert sequences(out) == [1, 2, 3, 4, 5, 6]


def test_a_file_that_was_moved_away_is_begun_anew(messages: list[Message], out: Path) -> None:
    sink = sinks.Files(out)
    deliver(sink, messages[:2])
    (out / CURRENT).rename(out / "moved")
    assert deliver(sink, messages[2:4]) == {"taken"}
    (out / CURRENT).unlink()
    assert deliver(sink, messages[4:6]) == {"taken"}
    sink.close()
    assert sequences(out) == [5, 6]
    assert (out / "moved").read_bytes().count(b"\n") == 2


def test_lines_are_found_from_behind_as_from_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(5)
    path = tmp_path / "file"
    for _ in range(300):
        monkeypatch.setattr("dwkernel.sinks.tail._BLOCK_BYTES", dice.choice([1, 2, 7, 64]))
        content = bytes(dice.choices(b"ab\n", k=dice.randrange(60)))
        path.write_bytes(content)
        whole = content[: content.rfind(b"\n") + 1]
        assert whole_bytes(path) == len(whole)
        assert list(backward(path)) == whole.split(b"\n")[:-1][::-1]


_CHILD = """
import os, random, signal, sys
import dwkernel as dw
from dwkernel.sinks import files

path, out, point, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
left = [random.Random(seed).randrange(3, 8)]

def die(at):
    if at == point:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

class Os:
    def __getattr__(self, name):
        return getattr(os, name)
    def write(self, file, data):
        die("before write")
        if point == "in write" and left[0] == 1:
            os.write(file, bytes(data[: max(1, len(data) * 2 // 3)]))
        die("in write")
        done = os.write(file, data)
        die("after write")
        return done
    def fdatasync(self, file):
        os.fdatasync(file)
        die("after sync")

files.os = Os()
rename = files.Files._rename
def renamed(self):
    die("before rename")
    rename(self)
    die("after rename")
files.Files._rename = renamed
deliver = files.Files.deliver
def delivered(self, messages):
    outcomes = deliver(self, messages)
    die("before acknowledging")
    return outcomes
files.Files.deliver = delivered

kernel = dw.open(path)
sink = files.Files(out, rotate_bytes=1500, format=sys.argv[5])
pump = dw.sinks.attach(kernel.bus.stream("s"), sink, name="c", batch=7)
pump.flush("60s")
print("flushed", flush=True)
pump.close()
kernel.close()
"""


@pytest.mark.parametrize("form", ["jsonl", "cloudevents"])
@pytest.mark.parametrize(
    "point",
    [
        *["before write", "in write", "after write", "after sync", "before acknowledging"],
        *["before rename", "after rename"],
    ],
)
def test_files_hold_each_message_once_after_a_kill(
    path: Path, out: Path, point: str, form: str
) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        stream.publish_many([("s", str(number).encode()) for number in range(150)])
    for run in range(60):
        arguments = [str(path), str(out), point, str(run), form]
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_CHILD), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            assert done.stdout == "flushed\n"
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        pytest.fail("it was killed each time")
    assert run > 0, "nothing was killed"
    assert sequences(out) == list(range(1, 151))
