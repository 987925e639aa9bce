"""Times that the command line prints: local with their offset for people, in UTC in JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from pathlib import Path

# Neither UTC nor whole hours from it.
_ZONE, _OFFSET = "Asia/Kolkata", "+05:30"
_LOCAL = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?\+05:30"


def _said(*arguments: object) -> str:
    command = [sys.executable, "-m", "dwkernel", *map(str, arguments)]
    environment = os.environ | {"TZ": _ZONE}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("times") / "store"
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"content")
        stream = kernel.bus.stream("orders", subjects=["orders.>"], create=True)
        stream.publish("orders.1", b"one")
        kernel.jobs.submit("scrub", delay="1h")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "STORE"),
        ("ls", "STORE", "docs/"),
        ("bus", "tail", "STORE", "orders"),
        ("bus", "topics", "STORE"),
        ("job", "list", "STORE"),
        ("job", "schedules", "STORE"),
    ],
)
def test_people_read_local_times_with_their_offset_and_json_has_utc(
    store: Path, command: tuple[str, ...]
) -> None:
    _said("job", "schedule", store, "nightly", "scrub", "--every", "1d")
    words = [store if word == "STORE" else word for word in command]
    text = _said(*words)
    assert re.search(_LOCAL, text), text
    # No other time is there.
    assert not re.search(r"\d\d:\d\d:\d\d", re.sub(_LOCAL, "", text)), text
    given = _said(*words, "--json")
    moments = list(
        _moments(
            [json.loads(line) for line in given.splitlines()]
            if command[1] == "replay"
            else json.loads(given)
        )
    )
    assert moments
    assert all(one.endswith("Z") for one in moments), moments
    now = datetime.now(UTC)
    assert all(abs(datetime.fromisoformat(one) - now) < timedelta(days=2) for one in moments)


def _moments(value: Any) -> Any:
    """Return all texts that are moments."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _moments(part)
    elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        yield value


def test_a_job_as_a_page_has_local_times(store: Path) -> None:
    [job] = json.loads(_said("job", "list", store, "--json"))
    assert re.search(rf"due_at +{_LOCAL}", _said("job", "show", store, job["id"]))


def test_who_names_a_zone_reads_when_it_is_due_there(store: Path) -> None:
    command = ("job", "schedule", store, "early", "scrub", "--cron", "30 2 * * *")
    assert re.search(
        r"due \d{4}-\d\d-\d\d 02:30:00\+09:00$",
        _said(*command, "--zone", "Asia/Tokyo"),
        re.MULTILINE,
    )
    assert re.search(r"due \d{4}-\d\d-\d\d 02:30:00\+00:00$", _said(*command), re.MULTILINE)


def test_a_moment_without_a_zone_is_local(store: Path) -> None:
    [line] = _said("bus", "tail", store, "orders").splitlines()
    moment = datetime.fromisoformat(line.split("\t")[0])
    for seconds, found in ((-1, 1), (1, 0)):
        at = (moment + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")
        assert len(_said("bus", "replay", store, "orders", "--from-time", at).splitlines()) == found
    # As it was printed.
    printed = line.split("\t")[0]
    assert len(_said("bus", "replay", store, "orders", "--from-time", printed).splitlines()) == 1
