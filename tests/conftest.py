"""What tests of the store share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import dwkernel as dw
from dwkernel.kernel import forget_memory_drives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dwkernel._records import MemoryRecords
    from dwkernel.bus import Stream
    from jobs_world import Gate


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Let go of what a test left in memory: each store there has journals of its own."""
    yield
    forget_memory_drives()


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
        from dwkernel.cli import app

        done = app.run()
        said = Said(*self._capfd.readouterr())
        assert done == status, (done, said)
        assert "Traceback" not in said.err
        return said

    @contextlib.contextmanager
    def opened(self, name: str = "orders") -> Iterator[Stream]:
        """Open the store to look at a stream."""
        with dw.open(self.store) as kernel:
            yield kernel.bus.stream(name)

    def fill(self, count: int) -> None:
        """Publish messages 1 to `count`, with their numbers as data and as header."""
        with self.opened() as stream:
            stream.publish_many(
                [(f"orders.{n % 3}", str(n).encode(), {"n": str(n)}) for n in range(1, count + 1)]
            )

    def contents(self, name: str = "orders") -> list[bytes]:
        """Return the data of all messages of a stream."""
        with self.opened(name) as stream:
            return [message.data for message in stream.replay()]


def _with_orders(path: Path, drives: int | list[str]) -> Path:
    with dw.open(path, drives=drives, create=True) as kernel:
        kernel.bus.stream("orders", subjects=["orders.>"], create=True)
    return path


@pytest.fixture
def here(
    path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Here:
    """`dwkernel bus` on a store in the memory of this process, with a stream `orders`."""
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    return Here(_with_orders(path, drives), monkeypatch, capfd)


@pytest.fixture
def on_disk(path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """`dwkernel bus` on a store that other processes find, too."""
    return Here(_with_orders(path, 3), monkeypatch, capfd)


@pytest.fixture
def records() -> MemoryRecords:
    """Where jobs are kept that need no store."""
    from dwkernel._records import MemoryRecords

    return MemoryRecords()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A kind of job that waits until it is let go."""
    from jobs_world import Gate

    gate = Gate()
    yield gate
    gate.opened.set()
