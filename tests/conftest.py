"""What tests of the store share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import dwkernel as dw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def kernel(path: Path) -> Iterator[dw.Kernel]:
    """A store of three local drives with a container `docs`."""
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        yield kernel


class Cli:
    """The command line, in a process of its own."""

    command = (sys.executable, "-m", "dwkernel")

    def __init__(self, place: Path) -> None:
        """Run in `place`, where what a command leaves behind harms nobody."""
        self.place = place

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command to its end; `status` is the exit status that it must have."""
        status = options.pop("status", 0)
        options = {"capture_output": True, "stdin": subprocess.DEVNULL, "text": True, **options}
        options.setdefault("cwd", self.place)
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            [*self.command, *map(str, arguments)],
            check=False,
            timeout=120,
            env=self.environment(),
            **options,
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in str(done.stderr)
        return done

    def answer(self, *arguments: object, status: int = 0) -> Any:
        """Run a command and return its JSON."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [*self.command, *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment(), cwd=self.place, **options)

    @staticmethod
    def environment() -> dict[str, str]:
        """Return what a command sees: wide, without colours."""
        return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUTF8": "1"}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let commands hear Ctrl-C also where a shell started these tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
