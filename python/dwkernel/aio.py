"""The same verbs for asyncio.

Each verb is its twin of `dwkernel.open` on a thread: the event loop goes on meanwhile. Cancelling a
task gives up waiting at once. A put then ends when its source has given what it was asked for, and
is there whole or not at all; a scrub, a rebuild and other long work end, and what is done stays
done; an opening ends, too. Other verbs end by themselves, by their deadline at the latest.

>>> import asyncio
>>> import dwkernel as dw
>>> async def example() -> bytes:
...     drives = [f"memory://aio-{n}" for n in range(3)]
...     async with dw.aio.open(drives=drives, create=True) as kernel:
...         await kernel.containers.create("docs")
...         await kernel.put("docs/a", b"hi")
...         async with await kernel.get("docs/a") as reader:
...             return await reader.read()
>>> asyncio.run(example())
b'hi'
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from dwkernel import kernel as sync
from dwkernel._forgotten import OpenedAt
from dwkernel._progress import looking

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator
    from types import TracebackType
    from typing import BinaryIO

    from typing_extensions import Buffer

    from dwkernel.config import Configuration
    from dwkernel.jobs import Job, Schedule
    from dwkernel.metrics import Snapshot
    from dwkernel.objects import ContainerInfo, Listing, ObjectInfo, Prefix, Reader
    from dwkernel.plugins import PluginInfo, ReloadReport
    from dwkernel.pool import Pool
    from dwkernel.reports import PackReport, PoolStatus, RebuildReport, ScrubReport

__all__ = [
    "AsyncContainers",
    "AsyncJobs",
    "AsyncKernel",
    "AsyncPlugins",
    "AsyncPool",
    "AsyncReader",
    "open",
]


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# Verbs wait for drives, not for a processor: many at once make one group commit.
_THREADS_MAX = 64
# One for each loop: what a fork leaves in the child belongs to a loop that does not run there.
_executors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = (
    weakref.WeakKeyDictionary()
)


async def _on_thread(
    work: Callable[_Given, _Result], /, *args: _Given.args, **options: _Given.kwargs
) -> _Result:
    """Do `work` on a thread of ours, in the context of the caller."""
    loop = asyncio.get_running_loop()
    executor = _executors.get(loop)
    if executor is None:
        executor = _executors[loop] = ThreadPoolExecutor(_THREADS_MAX, "dwk-aio")
    context, wanted = contextvars.copy_context(), _Wanted()
    context.run(looking.set, wanted.look)
    call = functools.partial(context.run, work, *args, **options)
    try:
        return await loop.run_in_executor(executor, call)
    except asyncio.CancelledError:
        wanted.end()
        raise


class _Wanted:
    """Whether somebody still waits for work on a thread."""

    def __init__(self) -> None:
        self._ended = False

    def end(self) -> None:
        self._ended = True

    def look(self) -> None:
        """Raise if nobody waits, which ends the work."""
        if self._ended:
            raise asyncio.CancelledError


class _Opening:
    """What `open` returns: a kernel when awaited, in `async with` one that is closed at the end."""

    def __init__(self, work: Callable[[], Awaitable[AsyncKernel]]) -> None:
        self._work = work
        self._kernel: AsyncKernel | None = None

    def __await__(self) -> Generator[Any, None, AsyncKernel]:
        return self._work().__await__()

    async def __aenter__(self) -> AsyncKernel:
        self._kernel = await self._work()
        return self._kernel

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._kernel is not None:
            await self._kernel.close()


def open(path: str | os.PathLike[str] | None = None, **options: Any) -> _Opening:  # noqa: A001 - `dw.aio.open`
    """Open a store with the options of `dwkernel.open`: `await` it, or use it in `async with`."""

    async def work() -> AsyncKernel:
        arrival = _Arrival()
        try:
            kernel = await _on_thread(arrival.open, path, **options)
        except asyncio.CancelledError:
            arrival.turn_away()
            raise
        kernel._opened_at = opened_at  # noqa: SLF001 - of this package
        return AsyncKernel(kernel)

    opened_at = OpenedAt()
    return _Opening(work)


class _Arrival:
    """A kernel that is being opened, and is closed again if nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kernel: sync.Kernel | None = None
        self._unwanted = False

    def open(self, *args: Any, **options: Any) -> sync.Kernel:
        kernel = sync.open(*args, **options)
        with self._lock:
            self._kernel = kernel
            unwanted = self._unwanted
        if unwanted:
            kernel.close()
        return kernel

    def turn_away(self) -> None:
        with self._lock:
            self._unwanted = True
            kernel = self._kernel
        if kernel is not None:
            # It came in this moment, and waits for nothing.
            kernel.close()


class AsyncKernel:
    """An open store; every verb as on `dwkernel.Kernel`."""

    def __init__(self, kernel: sync.Kernel) -> None:
        """Wrap an open store."""
        self.sync = kernel
        self.containers = AsyncContainers(kernel.containers)
        self.pool = AsyncPool(kernel.pool)

    @property
    def jobs(self) -> AsyncJobs:
        """Work that outlives the process."""
        return AsyncJobs(self.sync)

    @property
    def config(self) -> Configuration:
        """The configuration, as `Kernel.config`: looking at it waits for nothing."""
        return self.sync.config

    @property
    def plugins(self) -> AsyncPlugins:
        """Plugins: found, started, reloaded."""
        return AsyncPlugins(self.sync)

    async def put(
        self, key: str, data: Buffer | BinaryIO | os.PathLike[str], **options: Any
    ) -> ObjectInfo:
        """Write an object."""
        return await _on_thread(self.sync.put, key, data, **options)

    async def get(self, key: str, **options: Any) -> AsyncReader:
        """Open an object for reading."""
        opened_at = OpenedAt()
        reader = await _on_thread(self.sync.get, key, **options)
        reader._opened_at = opened_at  # noqa: SLF001 - of this package
        return AsyncReader(reader)

    async def head(self, key: str, **options: Any) -> ObjectInfo:
        """Return what is known of an object."""
        return await _on_thread(self.sync.head, key, **options)

    async def delete(self, key: str, **options: Any) -> None:
        """Delete an object."""
        await _on_thread(self.sync.delete, key, **options)

    def list(self, prefix: str = "", **options: Any) -> AsyncListing:
        """List keys; iterate with `async for`."""
        return AsyncListing(self.sync.list(prefix, **options))

    async def metrics(self, **options: Any) -> Snapshot:
        """Return figures for monitoring."""
        return await _on_thread(self.sync.metrics, **options)

    async def close(self, **options: Any) -> None:
        """Wait for what is under way and let the drives go."""
        await _on_thread(self.sync.close, **options)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.sync.closed

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()


class AsyncListing:
    """A listing, fetched page by page while it is iterated."""

    def __init__(self, listing: Listing) -> None:
        """Wrap a listing."""
        self.sync = listing

    async def __aiter__(self) -> AsyncIterator[ObjectInfo | Prefix]:
        """Iterate in the order of UTF-8 bytes."""
        pages = self.sync.pages()
        while page := await _on_thread(next, pages, None):
            for entry in page:
                yield entry


class AsyncJobs:
    """The jobs of a store; every verb as on `kernel.jobs`. A `Job` is awaited by `job.done()`."""

    # The first use imports, and so it belongs on the thread: hence the lambdas.

    def __init__(self, kernel: sync.Kernel) -> None:
        """Take an open store; use `kernel.jobs`."""
        self._kernel = kernel

    async def submit(self, kind: str, /, *args: Any, **options: Any) -> Job:
        """Submit a job."""
        return await _on_thread(lambda: self._kernel.jobs.submit(kind, *args, **options))

    async def get(self, job_id: str) -> Job:
        """Return a job by its id."""
        return await _on_thread(lambda: self._kernel.jobs.get(job_id))

    async def list(self, **options: Any) -> builtins.list[Job]:
        """Return jobs that have not ended."""
        return await _on_thread(lambda: self._kernel.jobs.list(**options))

    async def history(self, *args: Any, **options: Any) -> builtins.list[Job]:
        """Return jobs that have ended."""
        return await _on_thread(lambda: self._kernel.jobs.history(*args, **options))

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job."""
        return await _on_thread(lambda: self._kernel.jobs.cancel(job_id))

    async def schedule(self, name: str, kind: str, **options: Any) -> Schedule:
        """Submit a job again and again."""
        return await _on_thread(lambda: self._kernel.jobs.schedule(name, kind, **options))

    async def schedules(self) -> builtins.list[Schedule]:
        """Return all schedules."""
        return await _on_thread(lambda: self._kernel.jobs.schedules())  # noqa: PLW0108 - as said above

    async def unschedule(self, name: str) -> bool:
        """Remove a schedule."""
        return await _on_thread(lambda: self._kernel.jobs.unschedule(name))

    async def start(self) -> None:
        """Begin to run what waits."""
        await _on_thread(lambda: self._kernel.jobs.start())  # noqa: PLW0108 - as said above

    async def pause(self) -> None:
        """Run nothing until `resume`."""
        await _on_thread(lambda: self._kernel.jobs.pause())  # noqa: PLW0108 - as said above

    async def resume(self) -> None:
        """Run jobs again."""
        await _on_thread(lambda: self._kernel.jobs.resume())  # noqa: PLW0108 - as said above


class AsyncPlugins:
    """The plugins of a store; every step as on `kernel.plugins`, which has the rest."""

    # The first use imports, as above.

    def __init__(self, kernel: sync.Kernel) -> None:
        """Take an open store; use `kernel.plugins`."""
        self._kernel = kernel

    async def list(self) -> builtins.list[PluginInfo]:
        """Return what is known of every plugin that is there."""
        return await _on_thread(lambda: self._kernel.plugins.list())  # noqa: PLW0108 - as above

    async def info(self, plugin_id: str) -> PluginInfo:
        """Return what is known of a plugin."""
        return await _on_thread(lambda: self._kernel.plugins.info(plugin_id))

    async def load(self, path_or_id: str | os.PathLike[str]) -> PluginInfo:
        """Start a plugin."""
        return await _on_thread(lambda: self._kernel.plugins.load(path_or_id))

    async def reload(self, plugin_id: str, *args: Any, **options: Any) -> ReloadReport:
        """Put another version of a plugin in its place while it is used."""
        return await _on_thread(lambda: self._kernel.plugins.reload(plugin_id, *args, **options))

    async def enable(self, plugin_id: str, tenant: str | None = None) -> None:
        """Let a plugin serve."""
        await _on_thread(lambda: self._kernel.plugins.enable(plugin_id, tenant))

    async def disable(self, plugin_id: str, tenant: str | None = None) -> None:
        """Let a plugin serve no more."""
        await _on_thread(lambda: self._kernel.plugins.disable(plugin_id, tenant))

    async def pause(self, plugin_id: str) -> None:
        """Let a plugin rest."""
        await _on_thread(lambda: self._kernel.plugins.pause(plugin_id))

    async def resume(self, plugin_id: str) -> None:
        """Let a plugin go on."""
        await _on_thread(lambda: self._kernel.plugins.resume(plugin_id))


class AsyncReader:
    """Reads one version of an object."""

    def __init__(self, reader: Reader) -> None:
        """Wrap a reader."""
        self.sync = reader
        self.info = reader.info

    async def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all that is left."""
        return await _on_thread(self.sync.read, size)

    async def read_range(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset`."""
        return await _on_thread(self.sync.read_range, offset, length)

    async def close(self) -> None:
        """Let the version go."""
        await _on_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over pieces of 1 MiB."""
        while piece := await self.read(1 << 20):
            yield piece


class AsyncContainers:
    """The containers of a store."""

    def __init__(self, containers: sync.Containers) -> None:
        """Wrap the containers of a store."""
        self.sync = containers

    async def create(self, name: str, **options: Any) -> ContainerInfo:
        """Make a container."""
        return await _on_thread(self.sync.create, name, **options)

    async def get(self, name: str, **options: Any) -> ContainerInfo:
        """Return what is known of a container."""
        return await _on_thread(self.sync.get, name, **options)

    async def list(self, **options: Any) -> builtins.list[ContainerInfo]:
        """Return all containers."""
        return await _on_thread(self.sync.list, **options)

    async def delete(self, name: str, **options: Any) -> None:
        """Delete an empty container."""
        await _on_thread(self.sync.delete, name, **options)


class AsyncPool:
    """The drives of a store."""

    def __init__(self, pool: Pool) -> None:
        """Wrap the pool of a store."""
        self.sync = pool

    async def status(self, **options: Any) -> PoolStatus:
        """Return how every drive is."""
        return await _on_thread(self.sync.status, **options)

    async def scrub(self, **options: Any) -> ScrubReport:
        """Read and verify everything and repair what is wrong."""
        return await _on_thread(self.sync.scrub, **options)

    async def rebuild(self, drive: str | None = None, **options: Any) -> RebuildReport:
        """Restore what is missing."""
        return await _on_thread(self.sync.rebuild, drive, **options)

    async def pack(self, **options: Any) -> PackReport:
        """Give back room and pack what is half empty."""
        return await _on_thread(self.sync.pack, **options)

    async def replace(self, old: str, new: str | os.PathLike[str], **options: Any) -> RebuildReport:
        """Put a new drive in an old one's place."""
        return await _on_thread(self.sync.replace, old, new, **options)
