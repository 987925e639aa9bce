"""Kinds of jobs that plugins bring, in a kernel's jobs.

A kind is there while its plugin takes calls. While it is reloaded, paused, in quarantine or stopped
its running jobs are told to end at their next checkpoint; they wait with the others of it, and go
on when it is there again, with the version that is there then.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.jobs.context import Stop
from dwkernel.jobs.kinds import reason
from dwkernel.plugins.watchdog import bare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.jobs import JobContext, Jobs
    from dwkernel.plugins.handle import Handle
    from dwkernel.plugins.registry import Registry

__all__ = ["Employing"]

# After these calls will have to be over soon; what follows says how it goes on.
_LEAVING = frozenset({"plugin.reloading", "plugin.stopping"})
# What a kind may have besides its name.
_WISHES = ("max_attempts", "backoff", "timeout", "group")

_logger = logging.getLogger("dwkernel.plugins")


class Employing:
    """Keeps the kinds of jobs that a registry's plugins bring registered. Safe from any thread."""

    def __init__(self, registry: Registry, jobs: Jobs, limit: Callable[[], float]) -> None:
        """Register none yet; `limit` says how long a plugin may look at options, in seconds."""
        self._registry = registry
        self._jobs = jobs
        self._limit = limit
        self._lock = threading.RLock()
        self._leaving: set[str] = set()
        self._kinds: dict[str, tuple[Handle, Callable[[], None]]] = {}
        self._refused: set[tuple[str, str]] = set()

    def __call__(self, subject: str, data: Mapping[str, Any]) -> None:
        """Hear what happens to a plugin."""
        with self._lock:
            if subject in _LEAVING:
                self._leaving.add(data["id"])
            else:
                self._leaving.discard(data["id"])
            self.renew()

    def renew(self) -> None:
        """Register those that are there, and no others."""
        with self._lock:
            there = self._there()
            for name, (handle, unregister) in list(self._kinds.items()):
                if there.get(name) is not handle:
                    del self._kinds[name]
                    unregister()
            for name, handle in there.items():
                if name not in self._kinds:
                    self._register(name, handle)

    def _there(self) -> dict[str, Handle]:
        found: dict[str, Handle] = {}
        for handle in self._registry.find("job"):
            if handle.id not in self._leaving:
                try:
                    with handle.use() as instance:
                        name = str(instance.name)
                except errors.DwError:
                    continue  # it stopped in this moment
                except Exception as error:  # noqa: BLE001 - even a name is the plugin's code
                    self._refuse(handle, "", error)
                    continue
                # The first has the highest priority.
                found.setdefault(name, handle)
        return found

    def _refuse(self, handle: Handle, name: str, error: Exception) -> None:
        if (handle.id, name) not in self._refused:
            self._refused.add((handle.id, name))
            why = str(error) if isinstance(error, errors.DwError) else reason(error)
            _logger.warning("the kind of job of %s is not taken: %s", handle.id, why)

    def _register(self, name: str, handle: Handle) -> None:
        try:
            kind = PluginJob(name, handle, self.renew, self._limit)
            self._kinds[name] = handle, self._jobs.register(kind)
        except Exception as error:  # noqa: BLE001 - such as a name that is taken, or its own code
            self._refuse(handle, name, error)


class PluginJob:
    """A kind of job that a plugin has; each call goes to the version that is there."""

    def __init__(
        self,
        name: str,
        handle: Handle,
        closed: Callable[[], None],
        limit: Callable[[], float],
    ) -> None:
        """Take a plugin; `closed` is called when it takes no calls, to have this removed."""
        self.name = name
        self._handle = handle
        self._closed = closed
        self._limit = limit
        with handle.use() as instance:
            for wish in _WISHES:
                value = getattr(instance, wish, None)
                if value is not None:
                    setattr(self, wish, value)

    def validate(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options as the plugin takes them; raises `job.option`, `plugin.state`.

        One that hangs in here holds nobody up for longer than calls of plugins may take.
        """
        taken = self._handle.watched("validate", lambda: self._taken(options), self._limit())
        if isinstance(taken, Exception):
            # Raised in here and not below, where frames hold the instance, and with it its version.
            raise taken
        return taken  # type: ignore[no-any-return]

    def _taken(self, options: Mapping[str, Any]) -> Mapping[str, Any] | Exception:
        with self._handle.use() as instance:
            try:
                taken: Mapping[str, Any] = instance.validate(options)
            except errors.DwError as error:
                return bare(error)
            except Exception as error:  # noqa: BLE001 - whatever it says is why not
                text = f"{self.name}: {reason(error)}"
                return errors.new("job.option", text, kind=self.name)
        return taken

    def run(self, context: JobContext) -> Any:
        """Do a job."""
        use = self._handle.use()
        try:
            instance = use.__enter__()
        except errors.DwError:
            # Paused, stopped or kept out since the job was taken: it waits for better times.
            self._closed()
            raise Stop("kind") from None
        try:
            return instance.run(context)
        finally:
            del instance
            use.__exit__(None, None, None)
