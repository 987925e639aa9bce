"""Plugins: a use of a slot, a reload, what a reload adds to calls, finding and resolving 200.

Limited by the interpreter: a use is two steps of a dict; a reload compiles the plugin's source and
starts a thread for each step. Calls beside reloads come from 64 threads, each at a pace of its own.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dwkernel as dw
from benches.duel import Row, duel
from dwkernel.cli.plugin.making import make
from dwkernel.plugins import Plugins, PluginsSection, discovery, resolve
from dwkernel.plugins.swap import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USES = 100_000
RELOADS = 50
USERS = 64
PACE_S = 0.005
# A disk's syncs, and drives in Python, bear less.
DRIVES_PACE_S = 0.1
SECONDS = 6.0
COUNT = 200

MANIFEST = """id = "{id}"
version = "1.0"
kinds = ["policy"]
entry = "main:Counter"
kernel = ">=1.0,<2"
state_version = 1
keep_state = true
[requires]
{needs}
"""
CODE = """
from dwkernel.plugins import Verdict

class Counter:
    def __init__(self): self.count = 0
    def before(self, requests):
        self.count += len(requests)
        return [Verdict.allow() for _ in requests]
    def after(self, finished): pass
    def export_state(self): return self.count
    def import_state(self, state, version): self.count = state
"""


def rows() -> Iterator[Row]:
    """Measure uses, reloads, calls beside reloads, and finding."""
    yield uses()
    with tempfile.TemporaryDirectory() as folder:
        home = write(Path(folder), "p")
        with Plugins(PluginsSection(installed=False)) as plugins:
            plugins.load(home)
            yield reloads(plugins)
            handle = plugins.get("policy")

            def call() -> None:
                with handle.use() as instance:
                    instance.before(())

            yield from beside("a call", call, plugins, 0.1)
        yield from at_the_door(home)
        yield from on_its_drives(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COUNT):
            write(Path(folder), f"p{number}", f'p{number - 1} = ">=1"' if number % 10 else "")
        yield finding(Path(folder))


def write(folder: Path, name: str, needs: str = "") -> Path:
    home = folder / name
    home.mkdir()
    (home / "plugin.toml").write_text(MANIFEST.format(id=name, needs=needs))
    (home / "main.py").write_text(CODE)
    return home


def uses() -> Row:
    slot = Slot(1)

    def through_slot() -> None:
        for _ in range(USES):
            with slot.use():
                pass

    lock = threading.Lock()

    def under_lock() -> None:
        for _ in range(USES):
            with lock:
                pass

    what = "plugins: a use of a slot, beside a lock that would hold up others"
    row = duel(what, USES, {"dwkernel": through_slot, "lock": under_lock})
    row.unit = "/s"
    return row


def reloads(plugins: Plugins) -> Row:
    took, paused = [], []
    for _ in range(RELOADS):
        start = time.perf_counter()
        report = plugins.reload("p")
        took.append(time.perf_counter() - start)
        paused.append(report.paused_s)
        assert report.is_unloaded
    what = "plugins: a reload with state, until the old version is proved to be gone"
    what += f" (calls wait {statistics.median(paused) * 1e6:.0f} us of it)"
    return Row(what, 1, {"dwkernel": statistics.median(took)}, {"dwkernel": min(took)}, unit="/s")


def beside(
    what: str,
    turn: Callable[[], object],
    plugins: Plugins,
    every_s: float,
    pace_s: float = PACE_S,
) -> Iterator[Row]:
    """Do something for a while without reloads, and for a while with one every so often."""
    (name,) = (one.id for one in plugins.list() if one.source == "folder")
    calm, _ = turns(turn, lambda: None, every_s, pace_s)
    busy, reloads = turns(turn, lambda: plugins.reload(name), every_s, pace_s)
    for name, share in (("median", 0.5), ("99th percentile", 0.99), ("worst", 1.0)):
        quiet, loud = (late[min(len(late) - 1, int(len(late) * share))] for late in (calm, busy))
        text = f"plugins: {what} from {USERS} threads, {name}: {quiet * 1e3:.2f} ms"
        text += f", beside {reloads / SECONDS:.1f} reloads a second {loud * 1e3:.2f} ms"
        yield Row(text, 1, {"dwkernel": loud}, {"dwkernel": loud}, unit="/s")


def at_the_door(home: Path) -> Iterator[Row]:
    """Operations of a store in memory that a policy is asked about, beside its reloads."""
    drives = [f"memory://plugins-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        kernel.put("c/a", b"x" * 100)
        kernel.plugins.load(home)
        for every_s in (1.0, 0.1):
            yield from beside("head", lambda: kernel.head("c/a"), kernel.plugins, every_s)


def on_its_drives(folder: Path) -> Iterator[Row]:
    """Operations of a store whose three drives are a plugin's, on a disk, beside its reloads."""
    make("drive", "own-drive", folder / "drive")
    urls = [f"own-drive://{folder}/{number}" for number in range(3)]
    plugins = {"folders": [str(folder / "drive" / "src")], "enabled": ["own-drive"]}
    with dw.open(config={"plugins": plugins}, drives=urls, geometry="2+1", create=True) as kernel:
        kernel.containers.create("c")
        kernel.put("c/large", bytes(range(256)) * 400)
        kernel.put("c/small", b"")
        got = "a get of 100 KiB from a plugin's drives"
        get = lambda: kernel["c/large"]  # noqa: E731 - a turn
        yield from beside(got, get, kernel.plugins, 1.0, DRIVES_PACE_S)
        put = "a put of 100 bytes to a plugin's drives"
        write = lambda: kernel.put("c/small", b"x" * 100)  # noqa: E731 - a turn
        yield from beside(put, write, kernel.plugins, 1.0, DRIVES_PACE_S)


def turns(
    turn: Callable[[], object], reload: Callable[[], object], every_s: float, pace_s: float
) -> tuple[list[float], int]:
    """Return how long turns took, sorted, and how many reloads there were."""
    stop = threading.Event()
    took: list[list[float]] = [[] for _ in range(USERS)]

    def user(own: list[float]) -> None:
        while not stop.wait(pace_s):
            start = time.perf_counter()
            turn()
            own.append(time.perf_counter() - start)

    threads = [threading.Thread(target=user, args=(own,)) for own in took]
    for thread in threads:
        thread.start()
    end, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        reload()
        count += 1
        time.sleep(every_s)
    stop.set()
    for thread in threads:
        thread.join()
    return sorted(one for own in took for one in own), count


def finding(folder: Path) -> Row:
    def find() -> None:
        found = discovery.discover([folder], [])
        versions = {name: [one.manifest for one in some] for name, some in found.plugins.items()}
        assert len(resolve.resolve(versions, versions).order) == COUNT

    row = duel(f"plugins: finding and resolving {COUNT}", COUNT, {"dwkernel": find})
    row.unit = "/s"
    return row
