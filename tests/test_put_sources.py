"""Files that are stored by their path: whatever they are called, and however long they take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dwkernel as dw
from dwkernel import errors
from expect import code_of


class _BytesPath:
    """A path that says itself as bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self._path)


def test_a_path_that_says_itself_as_bytes_is_a_path_and_no_content(
    kernel: dw.Kernel, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    kernel.put("docs/a", _BytesPath(file))  # type: ignore[arg-type]
    assert kernel["docs/a"] == b"content"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"entry")
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            kernel.put("docs/b", entry)  # type: ignore[arg-type]
    assert kernel["docs/b"] == b"entry"


def test_a_file_is_read_whatever_bytes_its_name_has(kernel: dw.Kernel, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"a\xff")  # noqa: PTH118 - bytes
    Path(os.fsdecode(odd)).write_bytes(b"right")
    # What the name looks like where it cannot be shown is another file's.
    for shown in ("a\ufffd", "a\ufffd\ufffd\ufffd"):
        (tmp_path / shown).write_bytes(b"wrong")
    kernel.put("docs/a", Path(os.fsdecode(odd)))
    assert kernel["docs/a"] == b"right"


def test_what_can_be_no_path_is_a_source_that_failed(kernel: dw.Kernel, tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid) as caught:
        kernel.put("docs/a", Path("a\0b"))
    assert caught.value.code == "source.failed"
    with pytest.raises(errors.Invalid, match="No such file"):
        kernel.put("docs/a", tmp_path / "none")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_pipe_is_read_to_its_end_by_its_path(kernel: dw.Kernel, pipe: Path) -> None:
    content = os.urandom(3_000_000)

    def write() -> None:
        # Who reads waits for the first byte, and for the next.
        time.sleep(0.2)
        with pipe.open("wb", buffering=0) as file:
            file.write(content[:1000])
            time.sleep(0.2)
            left = memoryview(content)[1000:]
            while left:
                left = left[file.write(left) :]

    writer = threading.Thread(target=write)
    writer.start()
    assert kernel.put("docs/a", pipe).size == len(content)
    writer.join()
    assert kernel["docs/a"] == content


def test_a_deadline_holds_for_a_pipe_that_nobody_writes_to(kernel: dw.Kernel, pipe: Path) -> None:
    start = time.monotonic()
    # Where it does not hold, a writer that comes and goes ends the wait.
    late = threading.Timer(20, lambda: pipe.open("wb").close())
    late.start()
    assert code_of(lambda: kernel.put("docs/a", pipe, timeout=0.3)) == "context.deadline"
    late.cancel()
    assert time.monotonic() - start < 15
    assert "docs/a" not in kernel


_PUT = """
import signal, sys, pathlib
import dwkernel as dw
signal.signal(signal.SIGINT, signal.default_int_handler)
kernel = dw.open(drives=["memory://a"], create=True)
kernel.containers.create("docs")
print("ready", flush=True)
kernel.put("docs/a", pathlib.Path(sys.argv[1]))
"""


def test_ctrl_c_ends_a_put_of_a_pipe_that_nobody_writes_to(pipe: Path) -> None:
    command = [sys.executable, "-c", _PUT, str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        try:
            _, said = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in said
