"""Real brokers on this machine, for tests: started on a free port, killed at the end.

Looked for on the PATH, in the places where a system keeps servers, and where `tools/get-servers`
unpacks them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dwkernel._closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalServer", "find", "missing"]

Kind = Literal["nats", "redis"]

_PROGRAMS: dict[Kind, str] = {"nats": "nats-server", "redis": "redis-server"}
_SYSTEM = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
_UNPACKED = Path(sys.prefix) / "servers"
_START_S = 30.0
_POLL_S = 0.01


def find(kind: Kind) -> str | None:
    """Return where the program of a server is; None if it is not on this machine."""
    unpacked = [str(_UNPACKED / place) for place in ("usr/sbin", "usr/bin")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM, *unpacked])
    return shutil.which(_PROGRAMS[kind], path=path)


def missing(kind: Kind) -> str:
    """Return why tests with a server are skipped, and how to get it."""
    return f"{_PROGRAMS[kind]} is not installed: run tools/get-servers, or install it"


class LocalServer(Closing):
    """A broker in a process of its own, on a loopback port, with a temporary directory.

    It keeps its port and directory when it is killed and started again.
    """

    def __init__(
        self,
        kind: Kind,
        settings: Mapping[str, str] | None = None,
        *,
        parent: str | None = None,
        program: str | None = None,
    ) -> None:
        """Start it, and wait until it answers.

        Args:
            kind: which one.
            settings: lines of its configuration: for NATS top-level settings; for Redis such as
                `{"appendfsync": "always"}`, which is what it does anyway.
            parent: where its directory is made; by default where temporary files go.
            program: which one to start; by default the one that `find` finds.

        Raises:
            FileNotFoundError: the program is not on this machine
            TimeoutError: it does not answer

        """
        program = program or find(kind)
        if program is None:
            raise FileNotFoundError(missing(kind))
        self.kind = kind
        self.directory = tempfile.mkdtemp(prefix=f"dwk-{kind}-", dir=parent)
        self.port = _free_port()
        self._program = program
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """What `brokers.connect` takes."""
        return f"{self.kind}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "it does not run"  # noqa: S101 - a bug of the caller
        return self._process.pid

    @property
    def log(self) -> str:
        """What it said."""
        return Path(self.directory, "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it where it was, and wait until it answers.

        Raises:
            TimeoutError: it does not answer

        """
        command = [self._program, *getattr(self, f"_{self.kind}_arguments")()]
        libraries = [str(one) for one in sorted(_UNPACKED.glob("usr/lib/*-linux-gnu*"))]
        environment = dict(os.environ)
        if libraries and self._program.startswith(str(_UNPACKED)):
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        with Path(self.directory, "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - found by its name on this machine
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                # Ctrl-C is for the test, not for the server.
                start_new_session=True,
            )
        end = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                message = f"{self._program} does not answer:\n{self.log[-2000:]}"
                raise TimeoutError(message)
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is gone. What it had not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def suspend(self) -> None:
        """Let it hang (SIGSTOP) until `resume`: connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        # All of its threads have stopped when the parent is told.
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove what it kept."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _nats_arguments(self) -> list[str]:
        lines = {
            "listen": f"127.0.0.1:{self.port}",
            "jetstream": f'{{ store_dir: "{self.directory}/data" }}',
        }
        text = "".join(f"{name}: {value}\n" for name, value in (lines | self._settings).items())
        configuration = Path(self.directory, "nats.conf")
        configuration.write_text(text, encoding="utf-8")
        return ["-c", str(configuration)]

    def _redis_arguments(self) -> list[str]:
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": self.directory,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        text = "".join(
            f"{name} {value or chr(34) * 2}\n" for name, value in (lines | self._settings).items()
        )
        configuration = Path(self.directory, "redis.conf")
        configuration.write_text(text, encoding="utf-8")
        return [str(configuration)]

    def _answers(self) -> bool:
        """Return whether it serves: NATS greets, Redis answers a PING once it has read its log."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                if self.kind == "redis":
                    connection.sendall(b"PING\r\n")
                    return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
                if not connection.recv(4096).startswith(b"INFO"):
                    return False
        except OSError:
            return False
        # It greets before streams are recovered.
        return "Server is ready" in self.log.rpartition("Starting nats-server")[2]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
