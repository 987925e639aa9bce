"""Open a store and use it.

>>> import dwkernel as dw
>>> with dw.open(
...     drives=[f"memory://doc-{n}" for n in range(6)], geometry="4+2", create=True
... ) as kernel:
...     _ = kernel.containers.create("docs")
...     info = kernel.put("docs/hello.txt", b"hi", content_type="text/plain")
...     kernel["docs/hello.txt"], info.size, "docs/none" in kernel
(b'hi', 2, False)
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from dwkernel import _native, errors
from dwkernel._closing import Closing
from dwkernel._forgotten import WAIT_S, OpenedAt, forgotten
from dwkernel._messages import padded
from dwkernel._options import (
    create_of,
    drive_labels,
    drives_of,
    flag,
    labels_of,
    principal,
    program,
)
from dwkernel._progress import showing
from dwkernel.config._opening import Settings
from dwkernel.containers import Containers, NotEnforcedWarning
from dwkernel.objects import Listing, ObjectInfo, Prefix, Reader
from dwkernel.pool import Pool, place
from dwkernel.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

    from dwkernel.bus import Bus
    from dwkernel.config import Configuration
    from dwkernel.jobs import Jobs
    from dwkernel.metrics import Snapshot
    from dwkernel.plugins import Plugins
    from dwkernel.queue import BoundedQueue, BytesQueue
    from dwkernel.reports import Progress

    _Show = Callable[[int, int | None], None] | None

__all__ = ["Containers", "Kernel", "NotEnforcedWarning", "forget_memory_drives", "open"]

_CLOSE_TIMEOUT = "5min"
_PAGE_ENTRIES = 1000
# An opening that is done by then shows no bar.
_SHOWN_AFTER_S = 1.0

Location = str | os.PathLike[str]


def open(  # noqa: A001, PLR0913 - `dw.open`; each option stands alone
    path: Location | None = None,
    *,
    drives: int | Sequence[Location] | None = None,
    geometry: str | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    create: bool | Literal["if_missing"] = False,
    read_only: bool | None = None,
    force: bool | None = None,
    timeout: Duration | None = None,
    config: Location | Sequence[Location] | Mapping[str, Any] | Configuration | None = None,
    progress: Callable[[Progress], object] | bool | None = None,
) -> Kernel:
    """Open a store, or create one.

    Args:
        path: holds pointers and caches; the drives are the truth. May be left out if `drives` says
            where they are.
        drives: a number (directories made under the path), or a list of paths and URLs (`file://`,
            `memory://`). Left out: where they were; for a new store as many as the geometry needs.
        geometry: for a new store, such as `"4+2"` or `"raid6:8"`; left out, what suits the number
            of drives (six drives: `"4+2"`).
        labels: for a new store, what drives are called by: `{"d1": {"rack": "a"}}`. Drives with an
            equal `failure_domain` are taken to fail together, and stripes are spread over domains.
        create: False opens and never creates; True refuses an existing store; `"if_missing"` does
            whichever fits.
        read_only: change nothing, and let other readers in.
        force: open what lies beyond the geometry's tolerance.
        timeout: the deadline of the opening, and of every operation that does not say its own; a
            day by default.
        config: files of TOML, later ones win; or a dict; or a `dwkernel.config.Configuration`. What
            is left out above is taken from its section `store` and from `limits.timeout`; variables
            `DWKERNEL__SECTION__FIELD` win over files. Files are watched: `kernel.config`.
        progress: an opening that has much to read after a crash may take long: True shows a bar
            after a second; a callable gets a `Progress` now and then, and ends the opening if it
            raises.

    Raises:
        NotFound: `store.not_found`, `store.unfinished`
        Exists: `store.exists`, `drive.not_empty`
        Unavailable: `store.locked` (details `pid`, `host`, `since`), `drives.too_many_lost`,
            `config.file`
        Invalid: `geometry.invalid`, `drives.too_few`, `drive.duplicate`, `drive.foreign`,
            `drive.url`, `store.option`, `config.syntax`, `config.unknown`, `config.value`
        Unsupported: `format.newer`, `geometry.not_storable`
        Denied: `drive.read_only`
        Timeout: `context.deadline`

    One process at a time has a store open. A loss that the geometry tolerates needs no flag. Ctrl-C
    ends an opening, which leaves everything as it was. A kernel that is collected without having
    been closed is closed then, and a `ResourceWarning` says so, as for files.
    """
    settings = Settings(
        config,
        {
            "path": None if path is None else place(path, "store.option"),
            "drives": drives_of(drives),
            "geometry": geometry,
            "labels": drive_labels(labels) or None,
            "read_only": None if read_only is None else flag("read_only", read_only),
            "force": None if force is None else flag("force", force),
        },
        timeout,
    )
    try:
        with showing(progress, "open", "bytes", None, after_s=_SHOWN_AFTER_S) as show:
            return _opened(settings, create_of(create), show)
    except BaseException:
        settings.close()
        raise


def _opened(settings: Settings, create: str, show: _Show) -> Kernel:
    plugins = settings.plugins()
    try:
        return _kernel(settings, create, plugins, show)
    except BaseException:
        if plugins is not None:
            plugins.close()
        raise


def _kernel(settings: Settings, create: str, plugins: Plugins | None, show: _Show) -> Kernel:
    caller = _native.Caller(principal())
    drives = settings.option("drives")
    if plugins is not None and isinstance(drives, list):
        from dwkernel.plugins.joining import check_drives  # noqa: PLC0415 - it is loaded

        check_drives(plugins, drives)
    store = _native.Store.open(
        caller,
        settings.timeout_s,
        path=settings.option("path"),
        drives=drives,
        geometry=settings.option("geometry"),
        labels=drive_labels(settings.option("labels")),
        create=create,
        read_only=bool(settings.option("read_only")),
        force=bool(settings.option("force")),
        program=program(),
        settings=settings.tuning(),
        progress=show,
    )
    try:
        return Kernel(store, caller, settings, plugins)
    except BaseException:
        # Such as a warning that the program has made an error.
        store.close(caller, settings.timeout_s)
        raise


def forget_memory_drives() -> int:
    """Let go of all drives in memory (`memory://…`) of this process, with what is on them.

    A store that is open on some goes on until it is closed. For tests that make many.

    Returns:
        How many they were.

    """
    return _native.forget_memory_drives()


class Kernel(Closing):
    """An open store. Threads may share it; a forked child may not.

    Every verb is one operation through the kernel's door: it has a deadline (`timeout=`) and a
    correlation id, which is in every error. A change is durable and visible when its verb returns.
    The GIL is released while the store works.
    """

    def __init__(
        self,
        store: _native.Store,
        caller: _native.Caller,
        settings: Settings,
        plugins: Plugins | None = None,
    ) -> None:
        """Take an open store; use `dwkernel.open`."""
        self._opened_at = OpenedAt()
        self._store = store
        self._bus: Bus | None = None
        self._plugins: Plugins | None = None
        self._has_ended = False
        self._jobs: Jobs | None = None
        self._lock = threading.Lock()
        self._caller = caller
        # A subscriber to `limits.timeout` changes it.
        self._timeout_s = settings.timeout_s
        self._settings = settings
        self.containers = Containers(self)
        self.pool = Pool(store.pool, caller, self)
        settings.attach(self)
        if plugins is not None:
            self._plugins = settings.join(self, plugins)

    def put(  # noqa: PLR0913 - each option stands alone
        self,
        key: str,
        data: Buffer | BinaryIO | os.PathLike[str],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        publish: Iterable[Sequence[Any]] = (),
        progress: Callable[[Progress], object] | bool | None = None,
        timeout: Duration | None = None,
    ) -> ObjectInfo:
        """Write an object, whole or not at all; durable on return.

        Args:
            key: `container/name`, UTF-8, kept as given.
            data: bytes-like, a binary file object (read to its end, in bounded memory) or a path,
                also of a pipe or a device. A buffer that changes meanwhile is stored as it was
                read.
            if_absent: only if there is no such object.
            if_match: only if the object has this etag.
            content_type: what it is, such as `"text/plain"`; empty is as none.
            metadata: kept with it, text by text. Metadata, tags and content type together have up
                to 16 KiB of UTF-8, each pair counted with 8 bytes more.
            tags: labels to find it by, as metadata.
            publish: messages for durable streams in the same commit, as `Stream.publish_many` takes
                them: the object and they are there together, or neither.
            progress: True shows a bar; a callable gets a `Progress` now and then.
            timeout: the operation's deadline.

        Raises:
            NotFound: `container.not_found`
            Conflict: `object.conflict`
            Invalid: `object.key`, `object.metadata`, `source.failed` (`__cause__` is what the
                source raised); `stream.subject` if no stream takes one of `publish`
            Full: `pool.full`, `stream.full`
            Timeout: `context.deadline`: nothing is stored, or, where `details["outcome"]` is
                `"unknown"`, the object may be there, whole, at any time from now on

        """
        if isinstance(data, str):
            text = "a str is no bytes: encode it, or give pathlib.Path for a file"
            raise errors.new("buffer.type", text, type="str")
        source, total = _source(data)
        messages = [padded(message) for message in publish]
        with showing(progress, "put", "bytes", total) as show:
            native = self._store.put(
                self._caller,
                self._limit(timeout),
                key,
                source,
                if_absent=flag("if_absent", if_absent),
                if_match=if_match,
                content_type=content_type,
                metadata=labels_of(metadata),
                tags=labels_of(tags),
                progress=show,
                publish=(self.bus._native, messages) if messages else None,  # noqa: SLF001
            )
        return ObjectInfo._of(native)  # noqa: SLF001 - of this package

    def get(self, key: str, *, timeout: Duration | None = None) -> Reader:
        """Open an object for reading: a seekable binary file of the version of now.

        Each read is an operation with its own deadline of `timeout`.

        Raises:
            NotFound: `object.not_found`, `container.not_found`

        """
        limit = self._limit(timeout)
        native = self._store.get(self._caller, limit, key)
        return Reader(native, ObjectInfo._of(native.info), self._caller, limit, self)  # noqa: SLF001

    def head(self, key: str, *, timeout: Duration | None = None) -> ObjectInfo:
        """Return what is known of an object without reading it.

        Raises:
            NotFound: `object.not_found`, `container.not_found`

        """
        return ObjectInfo._of(self._store.head(self._caller, self._limit(timeout), key))  # noqa: SLF001

    def delete(
        self, key: str, *, if_match: str | None = None, timeout: Duration | None = None
    ) -> None:
        """Delete an object; with `if_match` only at that etag.

        Raises:
            NotFound: `object.not_found`, `container.not_found`
            Conflict: `object.conflict`
            Timeout: `context.deadline`, as for `put`

        """
        self._store.delete(self._caller, self._limit(timeout), key, if_match)

    def list(
        self,
        prefix: str = "",
        *,
        delimiter: str | None = None,
        limit: int | None = None,
        start_after: str | None = None,
        timeout: Duration | None = None,
    ) -> Listing:
        """List keys that begin with `prefix`, in the order of UTF-8 bytes.

        Args:
            prefix: `"docs/"` and what names must begin with; `"docs"` means the same as `"docs/"`;
                empty means everything.
            delimiter: keys that have it after the prefix are rolled up into one `Prefix`.
            limit: at most so many entries, 0 or more; None for all of them.
            start_after: only what comes after this key.
            timeout: the deadline of each page.

        Raises:
            Invalid: `store.option`: a limit below 0
            NotFound: `container.not_found`, when it is iterated

        """
        timeout_s = self._limit(timeout)
        given: object = limit  # callers without a type checker give anything
        if not isinstance(given, int | None):
            text = f"limit is a number or None, not {type(given).__name__}"
            raise errors.new("store.option", text)
        if limit is not None and limit < 0:
            raise errors.new("store.option", f"limit={limit}: give 0 or more, or None for all")

        def pages() -> Iterator[list[ObjectInfo | Prefix]]:
            after, left = start_after, limit
            while left is None or left > 0:
                wanted = _PAGE_ENTRIES if left is None else min(left, _PAGE_ENTRIES)
                entries, after = self._store.list(
                    self._caller, timeout_s, prefix, delimiter, after, wanted
                )
                if entries:
                    yield [_entry(native) for native in entries]
                if after is None:
                    return
                left = None if left is None else left - len(entries)

        return Listing(pages)

    def metrics(
        self,
        *,
        limit: int = 1000,
        queues: Mapping[str, BoundedQueue[Any] | BytesQueue] | None = None,
    ) -> Snapshot:
        """Return figures for monitoring: of the pool, the bus, streams and consumers.

        It asks everything once and holds nobody up; see docs/guide.md for what it costs.

        Args:
            limit: so many subscriptions, streams and consumers, the first by name, have figures of
                their own; those of the others are joined under the label `(others)`.
            queues: queues of the program that are to be told of, by name.

        Raises:
            Invalid: `store.option`: a limit below 1
            State: `store.closed`

        """
        if limit < 1:
            raise errors.new("store.option", f"limit={limit}: give 1 or more", option="limit")
        from dwkernel._gathering import gather  # noqa: PLC0415 - who looks pays for it

        return gather(self.bus, self.pool.status(), queues or {}, limit)

    def close(self, *, timeout: Duration = _CLOSE_TIMEOUT) -> None:
        """Wait for what is under way and let the drives go; a second call does nothing.

        Raises:
            Timeout: `context.deadline`: something is still under way; nothing new gets in.
                `bus.timeout`: handlers of the bus still run, or, with the detail `jobs`,
                `context.deadline`: jobs still run; everything else is closed

        """
        left = parse_duration(timeout)
        bus, self._bus = self._bus, None
        with contextlib.ExitStack() as closing:
            # From the last one up: the store needs its plugins until it has let the drives go.
            closing.callback(self._end, left)
            closing.callback(self._close_store, left)
            if bus is not None:
                closing.callback(bus.close, left)
            if self._jobs is not None:
                self._jobs.close(min(left, parse_duration(self._jobs.settings.stop_timeout)))

    def __del__(self, forgotten: Callable[..., None] = forgotten) -> None:
        """Close what nobody closed, and say so.

        Raises:
            ResourceWarning: where the program has made it an error

        """
        store = getattr(self, "_store", None)
        if store is None or store.closed:
            return
        # What works for it in the background ends by itself when there is no kernel any more.
        close = functools.partial(store.close, self._caller, WAIT_S)
        forgotten(self, store.locations, close, self._opened_at)

    def _close_store(self, left: float) -> None:
        self._store.close(self._caller, left)
        self._has_ended = True

    def _end(self, left: float) -> None:
        if not self._has_ended:
            return  # it is closed again
        plugins, self._plugins = self._plugins, None
        if plugins is not None:
            plugins.close(left)
        self._settings.close()

    @property
    def config(self) -> Configuration:
        """The configuration: what counts now, and who hears of changes."""
        return self._settings.configuration

    @property
    def bus(self) -> Bus:
        """Topics in memory, of this kernel's tenant: publish, subscribe, ask.

        Raises:
            State: `store.closed`, `store.forked`

        """
        bus = self._bus
        if bus is None:
            from dwkernel.bus import Bus  # noqa: PLC0415 - most programs publish nothing

            native = self._store.bus(self._caller, self._limit(None))
            with self._lock:
                bus = self._bus = self._bus or Bus(native, limit=self._limit)
        return bus

    @property
    def plugins(self) -> Plugins:
        """Plugins: found, started, reloaded. What happens to them is published on the bus.

        Raises:
            State: `store.closed`

        """
        plugins = self._plugins
        if plugins is None:
            with self._lock:
                if self._store.closed:
                    raise errors.new("store.closed", "the store is closed")
                plugins = self._plugins = self._plugins or self._settings.join(self)
        return plugins

    @property
    def jobs(self) -> Jobs:
        """Work that outlives the process: submit, schedule, look, cancel.

        What an earlier opening left goes on when this one submits something, or with
        `kernel.jobs.start()`.
        """
        jobs = self._jobs
        if jobs is None:
            from dwkernel.jobs.wiring import jobs_of  # noqa: PLC0415 - most programs have none

            with self._lock:
                jobs = self._jobs = self._jobs or jobs_of(self)
        return jobs

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._store.closed

    def __getitem__(self, key: str) -> bytes:
        """Return the whole content of an object."""
        with self.get(key) as reader:
            return reader.read()

    def __setitem__(self, key: str, data: Buffer | BinaryIO | os.PathLike[str]) -> None:
        """Write an object."""
        self.put(key, data)

    def __delitem__(self, key: str) -> None:
        """Delete an object."""
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        """Return whether there is such an object."""
        if not isinstance(key, str):
            return False
        with contextlib.suppress(errors.NotFound):
            self.head(key)
            return True
        return False

    def __iter__(self) -> Iterator[str]:
        """Iterate over all keys."""
        return (entry.key for entry in self.list())

    def __repr__(self) -> str:
        """Name the pool."""
        state = "closed" if self.closed else "open"
        return f"<dwkernel.Kernel {self._store.id[:8]} {state}>"

    def _limit(self, timeout: Duration | None) -> float:
        return self._timeout_s if timeout is None else parse_duration(timeout)


def _entry(native: _native._ObjectTuple | str) -> ObjectInfo | Prefix:
    if isinstance(native, str):
        return Prefix(native)
    return ObjectInfo._of(native)  # noqa: SLF001 - of this package


def _source(
    data: Buffer | BinaryIO | os.PathLike[str],
) -> tuple[Buffer | BinaryIO | str, int | None]:
    """Return what the native side takes (a str is a path), and its length if it is known."""
    if isinstance(data, os.PathLike):
        # What gives a path as bytes is a path all the same, and no content.
        path = os.fsdecode(data)
        try:
            return path, os.stat(path).st_size  # noqa: PTH116 - any PathLike
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise errors.new("source.failed", f"cannot read {path}: {why}", path=path) from error
    if hasattr(data, "read"):
        return data, None
    try:
        return data, memoryview(data).nbytes
    except TypeError:
        return data, None
