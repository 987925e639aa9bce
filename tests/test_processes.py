"""Several processes: one has the store, a fork has nothing, kill -9 loses nothing acknowledged."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import errors
from mixed_load import REPAIRING, Book, loading

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, dwkernel as dw
with dw.open(sys.argv[1]) as kernel:
    print("open", flush=True)
    sys.stdin.read()
"""


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_second_process_is_refused_at_once_with_the_holders_pid(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
    with start(HOLD, str(path)) as holder:
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == b"open\n"
        begin = time.monotonic()
        with pytest.raises(ConnectionError) as caught:
            dw.open(path)
        assert time.monotonic() - begin < 5
        assert isinstance(caught.value, errors.Unavailable)
        assert caught.value.code == "store.locked"
        assert caught.value.retryable
        assert caught.value.details["pid"] == str(holder.pid)
        assert str(holder.pid) in str(caught.value)
        holder.stdin.close()
        assert holder.wait() == 0
    with dw.open(path) as kernel:
        assert "docs" in kernel.containers


@pytest.mark.parametrize("name", [b"odd\xff.py", b"x" * 200 + b".py"])
@pytest.mark.parametrize("user", [b"odd\xff", b"u" * 300, b"two\nlines", b""])
def test_programs_and_users_may_be_called_anything(
    tmp_path: Path, name: bytes, user: bytes
) -> None:
    program = tmp_path / os.fsdecode(name)
    program.write_text(
        "import dwkernel as dw\n"
        "with dw.open(drives=['memory://a'], create=True) as kernel: print('open')"
    )
    variables = {**os.environb, b"LOGNAME": user, b"USER": user}
    command = [os.fsencode(sys.executable), os.fsencode(program)]
    done = subprocess.run(command, capture_output=True, check=False, env=variables)
    assert (done.stdout, done.stderr) == (b"open\n", b"")


def test_the_same_process_is_refused_too(path: Path) -> None:
    with dw.open(path, drives=3, create=True):
        with pytest.raises(errors.Unavailable) as caught:
            dw.open(path)
        assert caught.value.details["pid"] == str(os.getpid())


def test_a_killed_holder_leaves_no_lock(path: Path) -> None:
    dw.open(path, drives=3, create=True).close()
    with start(HOLD, str(path)) as holder:
        assert holder.stdout
        holder.stdout.readline()
        holder.kill()
        holder.wait()
    dw.open(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_has_nothing_of_the_store_and_harms_nothing(path: Path) -> None:
    with dw.open(path, drives=3, create=True) as kernel:
        kernel.containers.create("docs")
        kernel.put("docs/a", bytes(300_000))
        reader = kernel.get("docs/a")
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(kernel, reader))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert reader.read() == bytes(300_000)
        reader.close()
        kernel.put("docs/b", b"still here")
    with dw.open(path) as kernel:
        assert kernel["docs/b"] == b"still here"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_lives_on_does_not_keep_the_parents_lock(path: Path) -> None:
    kernel = dw.open(path, drives=3, create=True)
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        kernel.close()
        dw.open(path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _in_the_child(kernel: dw.Kernel, reader: dw.Reader) -> int:
    try:
        for use in (
            lambda: kernel.head("docs/a"),
            lambda: kernel.put("docs/c", b""),
            reader.read,
            kernel.close,
        ):
            try:
                use()
            except errors.State as error:
                if error.code != "store.forked":
                    return 2
            else:
                return 3
    except BaseException:  # noqa: BLE001 - the child must not run the parent's tests
        return 4
    # What is dropped here must not reach the parent's drives.
    return 0


def test_kill_9_in_a_mixed_load_loses_nothing_acknowledged(path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201 - to replay the data, though not the moment
    chance = random.Random(seed)
    with dw.open(path, drives=3, create=True) as kernel:
        Book.begin(kernel)
    book = Book(seed)
    for epoch in range(12 if os.environ.get("DWK_LONG") else 4):
        with loading(seed, epoch, REPAIRING * (epoch % 2), path=str(path)) as said:
            book.listen(itertools.islice(said, chance.randrange(20, 400)))
            said.kill()
            book.listen(said)
        with dw.open(path) as kernel:
            book.check(kernel)
