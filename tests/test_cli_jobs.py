"""`dwkernel job`: submit, run, look, schedule."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw
from conftest import Cli, Said

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def job(path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run `job COMMAND STORE …` in this process, on a store with 4 MiB in it."""
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(4):
            kernel.put(f"docs/{number}", os.urandom(1 << 20))

    def run(command: str, *arguments: object, status: int = 0) -> Said:
        capfd.readouterr()
        words = ["dwkernel", "job", command, str(path), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        from dwkernel.cli import app

        done = app.run()
        said = Said(*capfd.readouterr())
        assert done == status, (done, said)
        assert "Traceback" not in said.err
        return said

    return run


def test_a_job_is_submitted_listed_run_and_shown(job: Any) -> None:
    assert job("kinds").out.split() == job("kinds", "--json").json
    job_id = job("submit", "scrub", "-o", "restart=true", "--priority", 5).out.strip()
    assert job("list").rows[0][:4] == [job_id, "scrub", "waiting", "5"]
    (listed,) = job("list", "--json").json
    assert (listed["id"], listed["options"], listed["state"]) == (
        job_id,
        {"restart": True},
        "waiting",
    )
    ran = job("run")
    assert ran.out.startswith(f"scrub {job_id} done in ")
    assert job("list").out == ""
    assert job("history").rows[0][:3] == [job_id, "scrub", "done"]
    assert job("history", "--state", "failed", "--json").json == []
    shown = job("show", job_id, "--json").json
    assert shown["result"]["stripes"] >= 4
    assert "state          done" in job("show", job_id).out


def test_waiting_for_a_job_says_what_came_out(job: Any) -> None:
    assert " done in " in job("submit", "scrub", "--wait").out
    done = job("submit", "rebuild", "--wait", "--json").json
    assert (done["state"], done["result"]["missing_shards"]) == ("done", 0)
    wrong = ("submit", "rebuild", "-o", "drive=d9", "--max-attempts", 1, "--wait")
    failed = job(*wrong, status=1)
    assert " failed" in failed.out
    assert 'no drive "d9"' in failed.err
    assert job(*wrong, "--json", status=1).json["error"]["code"] == "drive.unknown"


def test_run_goes_on_until_nothing_is_left_that_can_run_now(job: Any) -> None:
    for _ in range(3):
        job("submit", "rebuild")
    job("submit", "scrub", "--delay", "2h")
    job("submit", "rebuild", "-o", "drive=d9", "--max-attempts", 1)
    ran = job("run", "--json", "--workers", 3, status=1)
    assert sorted(line["state"] for line in ran.lines) == ["done"] * 3 + ["failed"]
    left = job("run")
    assert left.out == ""
    assert "1 job left" in left.err
    assert job("list").rows[0][2] == "scheduled"


def test_a_cancelled_job_does_not_run(job: Any) -> None:
    job_id = job("submit", "scrub").out.strip()
    assert job("cancel", job_id).out == f"scrub {job_id} cancelled\n"
    job("cancel", job_id, status=1)
    assert job("run").out == ""
    assert job("cancel", "nothing", "--json", status=1).json["error"]["code"] == "job.not_found"


def test_schedules_are_made_listed_and_removed(job: Any) -> None:
    said = job("schedule", "weekly", "scrub", "--cron", "0 3 * * sun", "--zone", "Europe/Berlin")
    assert said.out.startswith("weekly: scrub, due ")
    job("schedule", "often", "rebuild", "--every", "6h", "--catch-up", "--overlap", "queue")
    assert [row[:3] for row in job("schedules").rows] == [
        ["often", "rebuild", "every 6 h"],
        ["weekly", "scrub", "0 3 * * sun  Europe/Berlin"],
    ]
    (often, weekly) = job("schedules", "--json").json
    assert (often["catch_up"], often["overlap"], weekly["zone"]) == (True, "queue", "Europe/Berlin")
    assert job("unschedule", "often").out == "often is gone\n"
    assert "there are: weekly" in job("unschedule", "often", status=1).out
    wrong = job("schedule", "x", "scrub", "--cron", "0 3", "--json", status=2)
    assert wrong.json["error"]["code"] == "job.schedule"


def test_paused_jobs_wait_and_it_is_said(job: Any) -> None:
    job("submit", "scrub")
    assert job("pause").out == "jobs are paused\n"
    assert job("run").out == ""
    assert "paused" in job("list").err
    job("submit", "scrub", "--wait", status=1)
    job("resume")
    assert len(job("run").out.splitlines()) == 2


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (("submit", "nothing"), 1),
        (("submit", "scrub", "-o", "rate"), 2),
        (("submit", "scrub", "-o", "rate=fast"), 2),
        (("submit", "scrub", "--priority", "256"), 2),
        (("submit", "scrub", "--at", "tomorrow"), 2),
        (("list", "--state", "asleep"), 2),
    ],
)
def test_wrong_use_is_told_in_one_line(job: Any, wrong: tuple[str, ...], code: int) -> None:
    said = job(*wrong, "--json", status=code)
    assert said.json["error"]["message"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_who_ends_services_leave_a_job_where_it_was(
    cli: Cli, path: Path, interruptible: None, sent: signal.Signals
) -> None:
    del interruptible
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        for number in range(40):
            kernel.put(f"docs/{number}", os.urandom(70_000))
    cli.run("job", "submit", path, "scrub", "-o", "rate=1 MiB")
    with cli.start("job", "run", path, "--forever") as running:
        assert running.stderr is not None
        assert b"stripes" in running.stderr.readline()
        running.send_signal(sent)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"goes on where it was" in err
    (left,) = cli.answer("job", "list", path)
    assert left["state"] == "interrupted"
    with dw.open(path, read_only=True) as kernel:
        # It was put down in order, and that is no crash.
        record = kernel.jobs.get(left["id"])._record
        assert (record.state, record.interruptions) == ("interrupted", 0)
