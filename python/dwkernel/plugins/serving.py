"""How the kernel's door and its pool ask plugins, whatever version is there.

`Policies` asks all policies that serve; `PluginDrive` is a drive that a plugin opened, and stays
one over reloads.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.kinds.policy import Verdict
from dwkernel.plugins.watchdog import said

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Buffer

    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.kinds.policy import Finished, Request
    from dwkernel.plugins.registry import Registry
    from dwkernel.plugins.swap import Slot

__all__ = ["PluginDrive", "Policies"]

_ALLOW = Verdict.allow()


class Policies:
    """All policies as one. Safe from any thread.

    A request is refused by the first that refuses it, by priority, and the others are not asked. A
    policy that fails or is in quarantine refuses what it is asked about, unless it has `on_failure
    = "allow"`. One that is paused is not asked: that is what pausing it means.
    """

    def __init__(self, registry: Registry, limit_s: float | None = None) -> None:
        """Ask the policies of a registry.

        Args:
            registry: which.
            limit_s: how long each may take for a call that has no limit of its own
                (`timeout_s`), in seconds; it is on a thread of its own then. None: whoever calls
                watches over the time.

        """
        self._registry = registry
        self.limit_s = limit_s

    def before(self, requests: Sequence[Request]) -> list[Verdict]:
        """Return a verdict for each request, in their order. Raises nothing."""
        verdicts = [Verdict.allow()] * len(requests)
        for tenant, numbers in _by_tenant(request.tenant for request in requests).items():
            left = numbers
            for handle in self._registry.find("policy", None, tenant or None, closed=True):
                if not left or handle.slot.is_paused:
                    continue
                answers = self._ask(handle, [requests[number] for number in left])
                for number, answer in zip(left, answers, strict=True):
                    verdicts[number] = _joined(verdicts[number], answer)
                left = [number for number in left if verdicts[number].kind == "allow"]
        return verdicts

    def after(self, finished: Sequence[Finished]) -> None:
        """Tell all how operations ended. Raises nothing."""
        for tenant, numbers in _by_tenant(one.request.tenant for one in finished).items():
            told = [finished[number] for number in numbers]
            for handle in self._registry.find("policy", None, tenant or None):
                try:
                    # A list for each: what one does to its own, the next does not see.
                    handle.call("after", list(told), limit_s=handle.limit_s or self.limit_s)
                except errors.DwError:
                    continue  # counted, and in the plugin's log

    def _ask(self, handle: Handle, requests: list[Request]) -> list[Verdict]:
        count = len(requests)
        limit_s = handle.limit_s or self.limit_s
        try:
            answers: list[Verdict] = handle.call(
                "before", requests, limit_s=limit_s, read=lambda given: _verdicts(given, count)
            )
        except errors.DwError as error:
            if error.code == "plugin.state" and handle.slot.is_paused:
                return [Verdict.allow()] * count  # since it was looked for
            text = f"the policy {handle.id} could not be asked: {said(error)}"
        else:
            return answers
        return [Verdict.refuse(text) if handle.is_required else Verdict.allow()] * count


def _verdicts(given: Iterable[Any], count: int) -> list[Verdict]:
    """Return what a policy answered as verdicts that are sound: what is none must not allow."""
    answers = [_sound(one) for one in itertools.islice(given, count + 1)]
    if len(answers) != count:
        text = f"{len(answers)} verdicts on {count} requests"
        raise ValueError(text)
    return answers


def _sound(given: Any) -> Verdict:
    if given is _ALLOW:
        return Verdict.allow()
    if not isinstance(given, Verdict) or given.kind not in ("allow", "refuse"):
        text = f"{given!r} is no verdict"
        raise TypeError(text)
    if given.kind == "refuse":
        return Verdict.refuse(given.reason)
    try:
        return Verdict.annotate(given.annotations)
    except errors.DwError as error:
        raise TypeError(said(error)) from None


def _by_tenant(tenants: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, tenant in enumerate(tenants):
        found.setdefault(tenant, []).append(number)
    return found


def _joined(before: Verdict, answer: Verdict) -> Verdict:
    if not before.annotations:
        return answer
    return Verdict(answer.kind, answer.reason, {**before.annotations, **answer.annotations})


class _Key:
    """Stands for a drive, with those who keep what it opened, for as long as that is in use."""

    def __init__(self, drive: PluginDrive) -> None:
        self._drive = weakref.ref(drive)

    def renewed(self, source: Any, made: Any) -> Any:
        """Open the drive with another version; None if nobody uses it any more."""
        drive = self._drive()
        return None if drive is None else drive.renewed(source, made)


class PluginDrive:
    """A drive (see `dwkernel.plugins.kinds.drive.Drive`) that a plugin opens at a location.

    Each call goes to the version of the plugin that is there, which opens the drive at its first.
    What a drive raises and is no error of dwkernel becomes `drive.io`.
    """

    def __init__(self, slot: Slot[Any], location: str, *, make: bool = False) -> None:
        """Open nothing yet; with `make` it may be a new one."""
        self._slot = slot
        self._location = location
        self._make = make
        self._opening = threading.Lock()
        # What it is known by to those who keep what it opened: they don't keep this alive.
        self._key = _Key(self)

    def describe(self) -> Mapping[str, str]:
        """Return what it is."""
        found: Mapping[str, str] = self._call("describe")
        return found

    def put(self, name: str, parts: Sequence[Buffer]) -> None:
        """Write a blob."""
        self._call("put", name, parts)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read from a blob."""
        content: bytes = self._call("read", name, offset, length)
        return content

    def list(self, folder: str | None, after: str | None, limit: int) -> Sequence[tuple[str, int]]:
        """List blobs."""
        found: Sequence[tuple[str, int]] = self._call("list", folder, after, limit)
        return found

    def delete(self, name: str) -> None:
        """Remove a blob."""
        self._call("delete", name)

    def stat(self, name: str) -> int:
        """Return a blob's length."""
        length: int = self._call("stat", name)
        return length

    def capacity(self) -> tuple[int, int]:
        """Return room."""
        room: tuple[int, int] = self._call("capacity")
        return room

    def sync(self, tag: str) -> None:
        """Make everything durable."""
        self._call("sync", tag)

    def read_superblock(self, slot: int) -> bytes | None:
        """Read a superblock."""
        content: bytes | None = self._call("read_superblock", slot)
        return content

    def write_superblock(self, slot: int, content: Buffer) -> None:
        """Write a superblock."""
        self._call("write_superblock", slot, content)

    def lock(self, holder: Mapping[str, str], *, shared: bool) -> str:
        """Lock it."""
        token: str = self._call("lock", holder, shared=shared)
        return token

    def unlock(self, token: str) -> None:
        """Unlock it."""
        self._call("unlock", token)

    def holder(self) -> Mapping[str, str] | None:
        """Return who holds it."""
        found: Mapping[str, str] | None = self._call("holder")
        return found

    def log(self) -> _PluginLog | None:
        """Return its logs, if it has any."""
        return _PluginLog(self) if self._call("log") is not None else None

    def renewed(self, source: Any, drive: Any) -> Any:
        """Open it with the version that is to be the next; None if the drive itself is not well.

        Raises what opening it raises, while the drive is well as it is open now.
        """
        try:
            return source.open(self._location, False)  # noqa: FBT003 - as the pool calls it
        except Exception:
            try:
                drive.capacity()
            except Exception:  # noqa: BLE001 - then it is not because of the new version
                return None
            raise

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._made(lambda drive: getattr(drive, method)(*arguments, **options))

    def _made(self, call: Any) -> Any:
        use = self._slot.use()
        text = ""
        with use as source:
            kept = use.held.kept
            try:
                drive = kept.get(self._key)
                if drive is None:
                    with self._opening:
                        drive = kept.get(self._key) or source.open(self._location, self._make)
                        kept[self._key] = drive
                        # Whatever comes later, what is not there any more is not made anew.
                        self._make = False
                return call(drive)
            except errors.DwError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a drive raises
                text = f"the drive at {self._location} raised {type(error).__name__}: {error}"
        raise errors.new("drive.io", text, location=self._location)


class _PluginLog:
    """The logs of a plugin's drive; they are asked for anew at each call."""

    def __init__(self, drive: PluginDrive) -> None:
        self._drive = drive

    def create_log(self, name: str, length: int) -> None:
        """Make a log."""
        self._call("create_log", name, length)

    def write_log(self, name: str, offset: int, parts: Sequence[Buffer]) -> None:
        """Overwrite."""
        self._call("write_log", name, offset, parts)

    def sync_log(self, name: str, tag: str) -> None:
        """Make it durable."""
        self._call("sync_log", name, tag)

    def read_log(self, name: str, offset: int, length: int) -> bytes:
        """Read."""
        content: bytes = self._call("read_log", name, offset, length)
        return content

    def list_logs(self) -> Sequence[tuple[str, int]]:
        """List logs."""
        found: Sequence[tuple[str, int]] = self._call("list_logs")
        return found

    def delete_log(self, name: str) -> None:
        """Remove a log."""
        self._call("delete_log", name)

    def _call(self, method: str, *arguments: Any) -> Any:
        return self._drive._made(  # noqa: SLF001 - two halves of one thing
            lambda drive: getattr(drive.log(), method)(*arguments)
        )
