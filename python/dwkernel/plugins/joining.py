"""What joins plugins to a kernel and its configuration."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins.asking import Asking
from dwkernel.plugins.exporting import Exporting
from dwkernel.plugins.manager import Plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwkernel.config import Configuration
    from dwkernel.jobs import Jobs
    from dwkernel.kernel import Kernel
    from dwkernel.metrics import Snapshot
    from dwkernel.plugins.settings import PluginsSection

__all__ = ["adopt", "awaken", "before_opening", "check_drives", "configured", "employ", "follow"]

# A subscriber that holds publishers back must not hold up plugins.
_TELL_S = 0.1

_logger = logging.getLogger("dwkernel.plugins")


def configured(configuration: Configuration) -> Plugins:
    """Return plugins that go by a configuration's section `plugins`; none is started."""
    return Plugins(
        lambda: configuration.current.plugins,
        mode=lambda: configuration.current.mode,
    )


def before_opening(configuration: Configuration) -> Plugins | None:
    """Start what the configuration enables: a store's drives may be among it.

    What does not start is logged, and in `kernel.plugins.list()`; the others do.
    """
    if not _says_something(configuration.current.plugins):
        return None
    plugins = configured(configuration)
    _tell(plugins.start())
    return plugins


def _says_something(section: PluginsSection) -> bool:
    by_tenant = any(part.enabled for part in section.tenants.values())
    return bool(section.enabled or section.disabled or by_tenant)


def awaken(kernel: weakref.ref[Kernel], section: PluginsSection) -> None:
    """Let a kernel have plugins once a changed section says something of them.

    Nobody waits for it: a change of the configuration does not wait for plugins.
    """

    def work() -> None:
        there = kernel()
        if there is not None:
            with contextlib.suppress(errors.DwError):  # it was closed meanwhile
                _tell(there.plugins.apply())

    there = kernel()
    if there is not None and there._plugins is None and _says_something(section):  # noqa: SLF001 - of this package
        threading.Thread(target=work, name="dwk-plugins", daemon=True).start()


def check_drives(plugins: Plugins, drives: Sequence[str]) -> None:
    """Look in the registry whether somebody serves each drive: by its scheme, plain paths `file`.

    Raises:
        Invalid: `drive.url`: nobody does

    """
    for location in drives:
        scheme, mark, _ = location.partition("://")
        scheme = scheme if mark else "file"
        if not plugins.find("drive", scheme):
            text = f"nobody opens {location}: no plugin that is enabled serves {scheme}:// drives"
            raise errors.new("drive.url", text, drive=location)


def adopt(kernel: Kernel, plugins: Plugins) -> Plugins:
    """Let a kernel's door ask the policies of these plugins from now on; return them.

    What happens to them is published on its bus, in memory: subjects as `Plugins` has them, JSON.
    """
    there = weakref.ref(kernel)

    def announce(subject: str, data: dict[str, Any]) -> None:
        kernel = there()
        if kernel is not None:
            with contextlib.suppress(errors.DwError):  # one that closes has no bus any more
                text = json.dumps(data, default=str).encode()
                kernel.bus.publish(subject, text, timeout=_TELL_S)

    desk = kernel._store.policies(kernel._caller, kernel._limit(None))  # noqa: SLF001 - of this package
    asking = Asking(desk, plugins.registry, lambda: float(plugins.section.limits.call))
    plugins.on(lambda *_: asking.renew())
    plugins.on(announce)
    asking.renew()
    exporting = Exporting(plugins.registry, lambda: _figures(there), lambda: plugins.section)
    plugins.on(lambda *_: exporting.renew())
    exporting.renew()
    if kernel._jobs is not None:  # noqa: SLF001 - of this package
        employ(plugins, kernel._jobs)  # noqa: SLF001 - as above
    return plugins


def _figures(kernel: weakref.ref[Kernel]) -> Snapshot | None:
    there = kernel()
    return None if there is None else there.metrics()


def employ(plugins: Plugins, jobs: Jobs) -> None:
    """Let a kernel's jobs have the kinds that plugins bring, now and later."""
    from dwkernel.plugins.employing import Employing  # noqa: PLC0415 - who has jobs pays for it

    employing = Employing(plugins.registry, jobs, lambda: plugins.section.limits.call)
    # First: what starts in between is told, or found.
    plugins.on(employing)
    employing.renew()


def follow(
    plugins: Plugins, configuration: Configuration, since: PluginsSection | None = None
) -> Callable[[], None]:
    """Do as the section says whenever it changes, on a thread of its own; return what ends that.

    In between plugins are asked whether they are well. A change of the configuration does not wait
    for plugins that start or stop. `since` is what they go by so far, if they do: a change since
    then counts, too.
    """
    # Not an event, which an interrupt of who sets it may leave locked for ever.
    news: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                if not _wait(news, plugins, configuration):
                    return
                _tell(plugins.apply())
            except errors.State:
                return  # closed meanwhile
            except Exception:
                _logger.exception("plugins are not as the configuration says")

    threading.Thread(target=work, name="dwk-plugins", daemon=True).start()
    stop = configuration.on_change("plugins", lambda *_: news.put(True))  # noqa: FBT003 - a queue's
    if since is not None and configuration.current.plugins != since:
        news.put(True)  # noqa: FBT003 - as above

    def end() -> None:
        stop()
        news.put(False)  # noqa: FBT003 - as above

    return end


def _wait(news: queue.SimpleQueue[bool], plugins: Plugins, configuration: Configuration) -> bool:
    """Wait for news, and look after plugins meanwhile; False if there is nothing more to do."""
    while True:
        try:
            go_on = news.get(timeout=float(configuration.current.plugins.health.every))
        except queue.Empty:
            plugins.probe()
            continue
        while go_on and not news.empty():  # many changes are one
            go_on = news.get()
        return go_on


def _tell(wrong: dict[str, errors.DwError]) -> None:
    for name, error in wrong.items():
        _logger.warning("the plugin %s does not run: %s", name, error)
