"""Errors that newcomers meet at the command line say what to do next, in its own words."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errors") / "store"
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", b"a")
        kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    return path


_NO_JOB = "01a21a7d-bdd4-7000-bf9a-e7719d9bd5e0"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("cat STORE none/a", "container.not_found", "dwkernel put"),
        ("rm STORE docs/", "object.key", "rm -r"),
        ("rm STORE docs", "object.key", "rm -r"),
        ("drive replace STORE d1 STORE/d2", "drive.duplicate", "belongs to a store already"),
        ("drive replace STORE d1 /none/above/it", "drive.missing", "make the directory above it"),
        ("bus tail STORE none", "stream.not_found", "dwkernel bus topics"),
        ("bus dead STORE orders none", "stream.consumer_not_found", "dwkernel bus consumers"),
        ("job submit STORE scrub -o none=1", "job.option", "none: there is no such option"),
        (f"job show STORE {_NO_JOB}", "job.not_found", "dwkernel job list"),
        (
            "job schedule STORE s scrub --cron @daily --zone Mars/Base",
            "job.schedule",
            "such as 'Europe/Berlin'",
        ),
    ],
)
def test_an_error_says_what_to_do(store: Path, command: str, code: str, says: str) -> None:
    words = command.replace("STORE", str(store)).split()
    done = subprocess.run(
        [sys.executable, "-m", "dwkernel", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode in (1, 2)
    assert f"[{code}]" in done.stderr, done.stderr
    assert says in done.stderr, done.stderr
