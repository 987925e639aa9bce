"""One connection to NATS: kept up, asked by threads, done by the loop's thread.

Everything that is `async` here runs on the loop's thread. A connection that breaks is made again by
itself; what was asked meanwhile fails (`broker.lost`), and is not sent again: that is for whoever
knows whether it may be done twice. `epoch` counts the connections.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import os
import threading
import uuid
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import nats
import nats.errors

from dwkernel import errors
from dwkernel.brokers.nats.failures import denied, failure_of, lost
from dwkernel.brokers.nats.login import AGAIN_S, is_refusal, settings_of
from dwkernel.brokers.nats.loop import LoopThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from dwkernel.brokers.options import ConnectOptions
    from dwkernel.units import Duration

__all__ = ["Connection", "Listening", "NoResponders"]

_Result = TypeVar("_Result")

_CLOSE_S = 5.0
_ECHO_S = 1.0
# Beyond an operation's deadline its thread waits this long for the loop to say so.
_GRACE_S = 2.0


class NoResponders(Exception):
    """Nobody listens to that subject (status 503)."""


class Listening:
    """A subscription that outlives the connection it was made on."""

    def __init__(self, subject: str, group: str, handle: Callable[[Msg], object]) -> None:
        """Made by `Connection.listen`."""
        self.subject = subject
        self.group = group
        self.handle = handle
        self.current: Subscription | None = None

    async def deliver(self, message: Msg) -> None:
        """Give a message to whoever listens."""
        self.handle(message)


class Connection:
    """A connection to one server or cluster."""

    def __init__(self, url: str, options: ConnectOptions) -> None:
        """Connect.

        Raises:
            Unavailable: `broker.lost`
            Denied: `broker.denied`

        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{parts.scheme}://{shown}:{parts.port or 4222}"
        self.options = options
        self.epoch = 0
        self._settings = settings_of(parts.username, parts.password, options)
        self._pid = os.getpid()
        self._client: Client | None = None
        self._is_closed = False
        self._closing = threading.Lock()
        self._numbers = itertools.count(1)
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        # By the token of its answer: the answer, and what was asked.
        self._calls: dict[str, tuple[asyncio.Future[Msg], str]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._listening: list[Listening] = []
        self._refused = ""
        self._up = asyncio.Event()
        self._down: set[asyncio.Future[Any]] = set()
        self._restoring: asyncio.Task[None] | None = None
        self._loop = LoopThread("dwk-nats")
        try:
            patience_s = options.connect_timeout_s
            self._loop.run(self._connect(patience_s), patience_s + _GRACE_S)
        except BaseException:
            self._is_closed = True
            self._loop.close()
            raise

    # --- from any thread -------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse to go on where it must not be used.

        Raises:
            State: `bus.closed`, `bus.forked`

        """
        if os.getpid() != self._pid:
            raise errors.new("bus.forked", "the connection to NATS was made before a fork")
        if self._is_closed:
            raise errors.new("bus.closed", "the connection to NATS was closed")

    def call(
        self,
        work: Callable[[float], Coroutine[Any, Any, _Result]],
        timeout: Duration | None = None,
    ) -> _Result:
        """Do `work(deadline)` on the loop's thread, and return what it returns.

        Raises:
            State: `bus.closed`, `bus.forked`
            Unavailable: `broker.lost`

        """
        limit_s = self.options.limit(timeout)
        return self.wait(self.start(work, limit_s), limit_s + _GRACE_S)

    def start(
        self, work: Callable[[float], Coroutine[Any, Any, _Result]], limit_s: float
    ) -> concurrent.futures.Future[_Result]:
        """Begin `work(deadline)` on the loop's thread."""
        self.check()

        async def timed() -> _Result:
            return await work(asyncio.get_running_loop().time() + limit_s)

        try:
            return self._loop.start(timed())
        except RuntimeError:
            raise errors.new("bus.closed", "the connection to NATS was closed") from None

    def wait(self, future: concurrent.futures.Future[_Result], patience_s: float | None) -> _Result:
        """Wait for what was started; who is interrupted takes it back."""
        try:
            return future.result(patience_s)
        except TimeoutError:
            if future.done():
                # What it raised is such an error itself.
                raise
            future.cancel()
            what = "the loop's thread"
            raise lost(what, sent=True) from None
        except concurrent.futures.CancelledError:
            raise errors.new("bus.closed", "the connection to NATS was closed") from None
        except BaseException:
            future.cancel()
            raise

    async def call_async(
        self,
        work: Callable[[float], Coroutine[Any, Any, _Result]],
        timeout: Duration | None = None,  # noqa: ASYNC109 - as `call`
    ) -> _Result:
        """Do `call` from another event loop."""
        future = self.start(work, self.options.limit(timeout))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if self._is_closed and future.cancelled():
                raise errors.new("bus.closed", "the connection to NATS was closed") from None
            raise

    def soon(self, work: Callable[..., object], *arguments: object) -> None:
        """Call `work` on the loop's thread, in the order of these calls and of `start`."""
        self._loop.soon(work, *arguments)

    def forget(self, one: Listening) -> None:
        """Undo `listen` and `await_answers`, soon."""

        def begin() -> None:
            task = asyncio.ensure_future(_quietly(self.ignore(one)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.soon(begin)

    def post(self, subject: str, data: bytes) -> None:
        """Send a message without waiting, in the order of these calls and of `start`.

        Raises:
            State: `bus.closed`, `bus.forked`

        """
        self.check()
        if self._loop.is_here:
            self._post(subject, data)
        else:
            self._loop.soon(self._post, subject, data)

    @property
    def is_connected(self) -> bool:
        """Whether the server answers, as far as is known."""
        client = self._client
        return not self._is_closed and client is not None and self._is_up(client)

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return int(self._client.max_payload) if self._client is not None else 1 << 20

    def close(self, patience_s: float = _CLOSE_S) -> None:
        """Send what waits and end; what still waits for an answer is told `bus.closed`."""
        with self._closing:
            if self._is_closed:
                return
            if os.getpid() == self._pid:
                try:
                    self._loop.run(self._close(patience_s), patience_s + _GRACE_S)
                except (TimeoutError, concurrent.futures.CancelledError, RuntimeError):
                    # It hangs: the loop's end takes it along.
                    pass
                finally:
                    self._is_closed = True
                    self._loop.close()
            self._is_closed = True

    # --- on the loop's thread --------------------------------------------------------------------

    async def ready(self, deadline: float, what: str) -> Client:
        """Return the client once it is connected.

        Raises:
            Unavailable: `broker.lost`: not until the deadline

        """
        while True:
            client = self._client
            if client is not None and self._is_up(client):
                return client
            try:
                async with asyncio.timeout_at(deadline):
                    await self._up.wait()
            except TimeoutError:
                raise lost(what) from None
            # It may be down again by now.
            await asyncio.sleep(0)

    async def request(
        self,
        subject: str,
        data: bytes,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        *,
        epoch: int | None = None,
        is_echo: bool = False,
    ) -> Msg:
        """Ask, and return the first answer; with `epoch` on that connection or not at all.

        Raises:
            NoResponders: nobody listens
            Unavailable: `broker.lost`; with the detail `outcome` (`unknown`) it was sent
            Denied: `broker.denied`
            Invalid: `bus.message_size`

        """
        client = await self.ready(deadline, subject)
        if epoch is not None and epoch != self.epoch:
            raise lost(subject)
        token = subject.rpartition(".")[2] if is_echo else str(next(self._numbers))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._calls[token] = answer, subject
        try:
            reply = "" if is_echo else f"{self._inbox}.{token}"
            await self._publish(client, subject, data, reply, headers)
            async with asyncio.timeout_at(deadline):
                message = await answer
        except TimeoutError:
            raise lost(subject, sent=True) from None
        finally:
            self._calls.pop(token, None)
        if message.headers and message.headers.get("Status") == "503" and not message.data:
            raise NoResponders(subject)
        return message

    async def send(
        self, subject: str, data: bytes, deadline: float, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish without an answer."""
        client = await self.ready(deadline, subject)
        await self._publish(client, subject, data, "", headers)

    async def api(
        self, name: str, body: Mapping[str, Any] | None, deadline: float
    ) -> dict[str, Any]:
        """Ask JetStream's API.

        Raises:
            DwError: what it answers; `broker.lost`, `broker.denied`
            Unsupported: `broker.unsupported`: the server runs without JetStream

        """
        data = b"" if body is None else json.dumps(body).encode()
        subject = f"$JS.API.{name}"
        while True:
            try:
                message = await self.request(subject, data, deadline)
                break
            except NoResponders:
                # A server that starts has its API a moment later.
                now = asyncio.get_running_loop().time()
                if now + AGAIN_S > deadline:
                    text = "the server answers, but has no JetStream (nats-server -js)"
                    raise errors.new("broker.unsupported", text) from None
                if self.epoch <= 1 and not self._has_jetstream():
                    text = "the server runs without JetStream (nats-server -js)"
                    raise errors.new("broker.unsupported", text) from None
                await asyncio.sleep(AGAIN_S)
        found: dict[str, Any] = json.loads(message.data)
        if "error" in found:
            raise failure_of(found["error"], name)
        return found

    async def ask(self, subject: str, data: bytes, reply: str, deadline: float) -> None:
        """Publish with an inbox for the answers."""
        client = await self.ready(deadline, subject)
        await self._publish(client, subject, data, reply, None)

    def broken(self) -> asyncio.Future[None]:
        """Return a future that is done once this connection breaks; `mended` lets it go."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._down.add(future)
        return future

    def mended(self, future: asyncio.Future[None]) -> None:
        """Watch no more."""
        self._down.discard(future)
        future.cancel()

    async def listen(
        self, subject: str, group: str, handle: Callable[[Msg], object], deadline: float
    ) -> Listening:
        """Have what is published on a subject given to `handle`, also after reconnecting.

        Raises:
            Denied: `broker.denied`
            Unavailable: `broker.lost`

        """
        one = await self.await_answers(subject, group, handle, deadline)
        # The server has it before anything that is published after this, and has said if not.
        await self.echo(deadline)
        if f'subscription to "{subject.lower()}"' in self._refused:
            await self.ignore(one)
            raise denied(self._refused)
        return one

    async def await_answers(
        self, subject: str, group: str, handle: Callable[[Msg], object], deadline: float
    ) -> Listening:
        """Do `listen` for what is asked on this connection later: the server keeps the order."""
        client = await self.ready(deadline, subject)
        one = Listening(subject, group, handle)
        await self._listen_on(client, one)
        self._listening.append(one)
        return one

    async def ignore(self, one: Listening) -> None:
        """Undo `listen`."""
        if one in self._listening:
            self._listening.remove(one)
        if one.current is not None and self.is_connected:
            await one.current.unsubscribe()

    async def echo(self, deadline: float | None = None) -> None:
        """Send a message to ourselves: once it is back, the server has all that was sent before it.

        Not a ping of the client library: one that is not answered in time breaks its reading.

        Raises:
            Unavailable: `broker.lost`: not until the deadline, or within a second

        """
        end = asyncio.get_running_loop().time() + _ECHO_S if deadline is None else deadline
        await self.request(f"{self._inbox}.echo{next(self._numbers)}", b"", end, is_echo=True)

    # --- within ----------------------------------------------------------------------------------

    def _is_up(self, client: Client) -> bool:
        # The client says that it is connected before it has subscribed again: what was asked in
        # between would have an answer that nobody hears.
        return client.is_connected and self._up.is_set()

    def _has_jetstream(self) -> bool:
        client = self._client
        info = getattr(client, "_server_info", {}) if client is not None else {}
        return bool(info.get("jetstream"))

    def _post(self, subject: str, data: bytes) -> None:
        client = self._client
        if client is not None and not client.is_closed:
            task = asyncio.ensure_future(_quietly(client.publish(subject, data)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _publish(
        self,
        client: Client,
        subject: str,
        data: bytes,
        reply: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        try:
            await client.publish(
                subject, data, reply=reply, headers=dict(headers) if headers else None
            )
        except nats.errors.MaxPayloadError:
            text = f"{len(data)} bytes are more than the server takes ({client.max_payload})"
            raise errors.new("bus.message_size", text) from None
        except nats.errors.Error as error:
            what = f"{subject}: {error}"
            raise lost(what) from error

    async def _connect(self, patience_s: float) -> None:
        end = asyncio.get_running_loop().time() + patience_s
        while True:
            try:
                client = await self._connected(end)
            except ConnectionResetError as error:
                # So a server ends that refuses, too: the next answer may say which it is.
                if asyncio.get_running_loop().time() + AGAIN_S > end:
                    what = f"{self.url}: {error}"
                    raise lost(what) from None
                await asyncio.sleep(AGAIN_S)
                continue
            self._client = client
            await self._welcome(client)
            return

    async def _connected(self, end: float) -> Client:
        failures: list[Exception] = []
        refused = asyncio.Event()

        async def note(error: Exception) -> None:
            failures.append(error)
            if is_refusal(error):
                refused.set()
            self._note(error)

        connecting = asyncio.ensure_future(
            nats.connect(
                servers=[self.url],
                error_cb=note,
                disconnected_cb=self._broke,
                reconnected_cb=self._came_back,
                closed_cb=self._ended,
                **self._settings,
            )
        )
        refusal = asyncio.ensure_future(refused.wait())
        try:
            left_s = max(0.0, end - asyncio.get_running_loop().time())
            both = {connecting, refusal}
            await asyncio.wait(both, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                connecting.cancel()
            return await connecting
        except (asyncio.CancelledError, TimeoutError, OSError, nats.errors.Error) as error:
            for one in [*failures, error]:
                if is_refusal(one):
                    raise denied(str(one)) from None
            if isinstance(error, ConnectionResetError):
                raise
            what = f"{self.url}: {failures[-1] if failures else error}"
            raise lost(what) from None
        finally:
            refusal.cancel()

    async def _welcome(self, client: Client) -> None:
        """Listen on a new client to what was listened to, and let go who waits."""
        await client.subscribe(
            f"{self._inbox}.>", cb=self._on_answer, pending_msgs_limit=0, pending_bytes_limit=0
        )
        for one in self._listening:
            await self._listen_on(client, one)
        self.epoch += 1
        self._up.set()

    async def _listen_on(self, client: Client, one: Listening) -> None:
        try:
            one.current = await client.subscribe(
                one.subject,
                queue=one.group,
                cb=one.deliver,
                pending_msgs_limit=0,
                pending_bytes_limit=0,
            )
        except nats.errors.Error as error:
            what = f"{one.subject}: {error}"
            raise lost(what) from error

    async def _on_answer(self, message: Msg) -> None:
        call = self._calls.get(message.subject.rpartition(".")[2])
        if call is not None and not call[0].done():
            call[0].set_result(message)

    def _note(self, error: Exception) -> None:
        why = str(error).lower()
        if "permissions violation" not in why:
            return
        self._refused = why
        for answer, subject in self._calls.values():
            if f'publish to "{subject.lower()}"' in why and not answer.done():
                answer.set_exception(denied(why))

    async def _broke(self) -> None:
        """Tell everyone who waits for an answer: it went with the connection."""
        self._up.clear()
        for answer, subject in self._calls.values():
            if not answer.done():
                answer.set_exception(lost(subject, sent=True))
        self._wake()

    def _wake(self) -> None:
        for future in list(self._down):
            if not future.done():
                future.set_result(None)

    async def _came_back(self) -> None:
        self.epoch += 1
        self._up.set()

    async def _ended(self) -> None:
        """Begin anew where the client gave up, as when the server refused it in between."""
        await self._broke()
        if not self._is_closed and self._restoring is None and self._client is not None:
            self._restoring = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(AGAIN_S)
            try:
                await self._connect(self.options.connect_timeout_s)
            except errors.DwError:
                continue
            break
        self._restoring = None

    async def _close(self, patience_s: float) -> None:
        client = self._client
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)
        if client is not None and client.is_connected:
            await _quietly(self.echo())
        self._is_closed = True
        for answer, _ in self._calls.values():
            if not answer.done():
                answer.set_exception(errors.new("bus.closed", "the connection was closed"))
        self._wake()
        if client is None or client.is_closed:
            return
        async with asyncio.timeout(patience_s):
            await client.close()


async def _quietly(work: Awaitable[object]) -> None:
    """Do what may be lost with the connection."""
    try:
        await work
    except (nats.errors.Error, errors.DwError, OSError, TimeoutError):
        return
