"""Events of the store: none without its change, no change without it."""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from expect import code_of, until

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.bus import Message, Stream

PATIENCE_S = 30.0


def events_of(kernel: dw.Kernel, *subjects: str) -> Stream:
    return kernel.bus.stream("events", subjects=subjects, create=True)


def told(stream: Stream) -> list[tuple[str, Any]]:
    return [(message.subject, json.loads(message.data)) for message in stream.replay()]


def told_subjects(stream: Stream) -> list[str]:
    return [message.subject for message in stream.replay()]


def await_first(stream: Stream) -> None:
    until(lambda: stream.status().last_sequence >= 1)


def test_a_stream_gets_what_happens_to_objects_and_containers(kernel: dw.Kernel) -> None:
    stream = events_of(kernel, "object.*", "container.*")
    kernel.containers.create("logs")
    info = kernel.put("docs/a", b"abc", content_type="text/plain")
    kernel.put("docs/a", b"again")
    kernel.delete("docs/a")
    kernel.containers.delete("logs")
    assert told(stream) == [
        ("container.created", {"container": "logs"}),
        (
            "object.created",
            {
                "key": "docs/a",
                "size": 3,
                "checksum": f"{info.checksum:016x}",
                "content_type": "text/plain",
            },
        ),
        (
            "object.created",
            {
                "key": "docs/a",
                "size": 5,
                "checksum": f"{dw.hashing.crc64nvme(b'again'):016x}",
                "content_type": None,
            },
        ),
        ("object.deleted", {"key": "docs/a"}),
        ("container.deleted", {"container": "logs"}),
    ]
    created = list(stream.replay())[1]
    assert (created.key, created.headers) == ("docs/a", {"container": "docs"})
    assert (created.schema, created.principal) == ("dwkernel.event.v1", getpass.getuser())
    assert created.correlation_id is not None


def test_events_of_one_container_are_filtered_by_its_header(kernel: dw.Kernel) -> None:
    kernel.containers.create("logs")
    heard: list[str | None] = []
    kernel.bus.subscribe(
        "object.created",
        lambda message: heard.append(message.key),
        filter="headers.container == 'logs'",
    )
    kernel.put("docs/a", b"")
    kernel.put("logs/a", b"")
    until(lambda: heard == ["logs/a"])


def test_what_is_published_with_a_put_and_its_event_are_one_commit(kernel: dw.Kernel) -> None:
    stream = events_of(kernel, "object.*", "orders.*")
    kernel.put("docs/a", b"", publish=[("orders.new", b"1")])
    assert told_subjects(stream) == ["orders.new", "object.created"]
    assert stream.status().frames == 1


def test_a_change_that_fails_says_nothing(kernel: dw.Kernel) -> None:
    stream = events_of(kernel, "object.*", "container.*")
    kernel.put("docs/a", b"")
    assert code_of(lambda: kernel.put("docs/a", b"", if_absent=True)) == "object.conflict"
    assert code_of(lambda: kernel.delete("docs/none")) == "object.not_found"
    assert code_of(lambda: kernel.delete("docs/a", if_match="1-2")) == "object.conflict"
    assert code_of(lambda: kernel.containers.create("docs")) == "container.exists"
    assert code_of(lambda: kernel.containers.delete("docs")) == "container.not_empty"
    assert [subject for subject, _ in told(stream)] == ["object.created"]


def test_a_change_whose_event_a_stream_refuses_does_not_happen(kernel: dw.Kernel) -> None:
    kernel.put("docs/kept", b"")
    stream = kernel.bus.stream(
        "events", subjects=["object.>", "container.>"], max_messages=1, discard="new", create=True
    )
    kernel.put("docs/a", b"")
    assert code_of(lambda: kernel.put("docs/b", b"")) == "stream.full"
    assert code_of(lambda: kernel.delete("docs/kept")) == "stream.full"
    assert code_of(lambda: kernel.containers.create("logs")) == "stream.full"
    assert sorted(kernel) == ["docs/a", "docs/kept"]
    stream.purge()
    kernel.delete("docs/kept")
    assert sorted(kernel) == ["docs/a"]


def test_events_are_for_who_names_them(kernel: dw.Kernel) -> None:
    everything = kernel.bus.stream("everything", subjects=[">"], create=True)
    heard: list[str] = []
    kernel.bus.subscribe(">", lambda message: heard.append(message.subject))
    kernel.put("docs/a", b"")
    everything.publish("mine")
    kernel.bus.publish("mine")
    until(lambda: bool(heard))
    assert (heard, told_subjects(everything)) == (["mine"], ["mine"])


def test_where_nobody_listens_nothing_more_is_written(kernel: dw.Kernel) -> None:
    other = kernel.bus.stream("other", subjects=["orders.>"], create=True)
    kernel.put("docs/a", b"")
    assert other.status().last_sequence == 0
    later = events_of(kernel, "object.>")
    assert told(later) == []


def test_a_key_that_is_too_long_for_a_message_is_in_its_data(kernel: dw.Kernel) -> None:
    stream = events_of(kernel, "object.>")
    key = f"docs/{'x' * 2000}"
    kernel.put(key, b"")
    (message,) = stream.replay()
    assert message.key is None
    assert json.loads(message.data)["key"] == key


def test_a_subscriber_without_room_does_not_hold_the_store_up(kernel: dw.Kernel) -> None:
    hold = threading.Event()
    heard: list[Message] = []

    def handle(message: Message) -> None:
        hold.wait(PATIENCE_S)
        heard.append(message)

    subscription = kernel.bus.subscribe("object.>", handle, limit=1, policy="block")
    began = time.monotonic()
    for number in range(20):
        kernel.put(f"docs/{number}", b"")
    assert time.monotonic() - began < PATIENCE_S / 2
    hold.set()
    until(lambda: subscription.stats().depth == 0 and bool(heard))
    assert 1 <= len(heard) < 20
    assert heard[0].key == "docs/0"


def test_events_survive_a_kill_with_their_objects(path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        import dwkernel as dw
        kernel = dw.open(sys.argv[1], drives=3, create=True)
        kernel.containers.create("docs")
        kernel.bus.stream("events", subjects=["object.*"], create=True)
        for number in range(100_000):
            kernel.put(f"docs/{number}", b"x" * (number % 3) * 50_000)
            if number % 3 == 2:
                kernel.delete(f"docs/{number - 1}")
            if number == 100:
                print("on its way", flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "on its way\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGKILL)
    with dw.open(path) as kernel:
        there: set[str] = set()
        for subject, event in told(kernel.bus.stream("events")):
            (there.add if subject == "object.created" else there.discard)(event["key"])
        assert there == set(kernel)
        assert len(there) > 60


def test_a_drive_that_goes_and_returns_is_told_of_once(path: Path) -> None:
    with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
        stream = events_of(kernel, "drive.>")
        kernel.containers.create("docs")
    away = path.parent / "away"
    (path / "d2").rename(away)
    for _ in range(2):
        with dw.open(path) as kernel:
            stream = kernel.bus.stream("events")
            await_first(stream)
            kernel.put("docs/a", b"x" * 100_000)
    away.rename(path / "d2")
    with dw.open(path) as kernel:
        stream = kernel.bus.stream("events")
        kernel.pool.rebuild()
        until(lambda: told(stream)[-1][0] == "drive.recovered")
        subjects = [subject for subject, _ in told(stream)]
        assert subjects in (
            ["drive.missing", "drive.recovered"],
            ["drive.missing", "drive.stale", "drive.recovered"],
        )
        (missing, *_) = stream.replay()
        assert (missing.key, missing.headers, missing.principal) == ("d2", {"drive": "d2"}, None)
        event = json.loads(missing.data)
        assert (event["drive"], event["was"], event["state"]) == ("d2", "ok", "missing")
        assert event["location"] == str(path / "d2")


def test_a_drive_that_fails_in_use_is_told_of(path: Path) -> None:
    with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
        kernel.containers.create("docs")
        stream = events_of(kernel, "drive.>")
        heard: list[str | None] = []
        kernel.bus.subscribe("drive.failed", lambda message: heard.append(message.key))
        shutil.rmtree(path / "d2")
        kernel.put("docs/a", b"x" * 1_000_000)
        await_first(stream)
        assert [(subject, event["drive"]) for subject, event in told(stream)] == [
            ("drive.failed", "d2")
        ]
        until(lambda: heard == ["d2"])


def test_what_could_not_be_said_of_a_drive_is_said_at_a_later_opening(path: Path) -> None:
    with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
        kernel.bus.stream(
            "events", subjects=["drive.>", "note"], max_messages=1, discard="new", create=True
        ).publish("note")
    (path / "d2").rename(path.parent / "away")
    with dw.open(path) as kernel:
        stream = kernel.bus.stream("events")
        assert told_subjects(stream) == ["note"]
        stream.purge()
    with dw.open(path) as kernel:
        stream = kernel.bus.stream("events")
        until(lambda: told_subjects(stream) == ["drive.missing"])


def test_a_replacement_is_told_drive_by_drive_and_the_rebuild_with_its_report(path: Path) -> None:
    with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"x" * 1_000_000)
        stream = events_of(kernel, "drive.>", "rebuild.>")
        report = kernel.pool.replace("d3", path.parent / "new")
        until(lambda: any(subject == "drive.removed" for subject, _ in told(stream)))
        events = told(stream)
        drives = [
            (subject, event["drive"]) for subject, event in events if "rebuild" not in subject
        ]
        assert sorted(drives) == [
            ("drive.added", "d3"),
            ("drive.draining", "d3.old"),
            ("drive.removed", "d3.old"),
        ]
        (rebuilt,) = [event for subject, event in events if subject == "rebuild.finished"]
        assert rebuilt["drive"] == "d3"
        assert rebuilt["complete"] is True
        assert rebuilt["restored_shards"] == report.restored_shards > 0


def test_a_drive_that_was_added_is_told_of_after_a_kill(path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, signal, sys
        import dwkernel as dw
        path, new = sys.argv[1:]
        with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
            kernel.containers.create("docs")
            for number in range(8):
                kernel.put(f"docs/{number}", b"x" * 8_000_000)
            stream = kernel.bus.stream(
                "events", subjects=["drive.>", "note"], max_messages=1, discard="new", create=True
            )
            # The stream is full: nothing can be said.
            stream.publish("note")
            die = lambda progress: os.kill(os.getpid(), signal.SIGKILL)
            kernel.pool.replace("d3", new, progress=die, rate="30 MiB")
        """
    )
    command = [sys.executable, "-c", code, str(path), str(path.parent / "new")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with dw.open(path) as kernel:
        stream = kernel.bus.stream("events")
        assert told_subjects(stream) == ["note"]
        kernel.bus.stream("open", subjects=["drive.>"], create=True)
        stream.purge()
    with dw.open(path) as kernel:
        kernel.bus.delete_stream("events")
        later = kernel.bus.stream("open")
        until(lambda: ("drive.added", "d3") in [(kind, one["drive"]) for kind, one in told(later)])


def test_a_scrub_that_ends_says_what_it_found_and_one_that_is_stopped_says_so(
    kernel: dw.Kernel,
) -> None:
    class EnoughError(Exception):
        pass

    def stop(progress: object) -> None:
        raise EnoughError(progress)

    stream = events_of(kernel, "scrub.>")
    for number in range(8):
        kernel.put(f"docs/{number}", b"x" * 8_000_000)
    kernel.pool.scrub()
    (subject, event) = told(stream)[-1]
    assert (subject, event["clean"], event["damaged_shards"]) == ("scrub.finished", True, 0)
    assert event["read_bytes"] > 64_000_000
    with pytest.raises(EnoughError):
        kernel.pool.scrub(progress=stop, rate="30 MiB")
    assert told(stream)[-1][0] == "scrub.stopped"


def test_a_store_that_is_only_read_says_nothing(path: Path) -> None:
    with dw.open(path, drives=4, geometry="2+2", create=True) as kernel:
        events_of(kernel, "drive.>")
    shutil.rmtree(path / "d1")
    with dw.open(path, read_only=True) as kernel:
        stream = kernel.bus.stream("events")
        time.sleep(0.1)
        assert told(stream) == []
