"""A kernel and its configuration. It loads pydantic only if there is something to read."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.config.layers import has_variables
from dwkernel.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwkernel.config.manager import Configuration
    from dwkernel.kernel import Kernel
    from dwkernel.plugins import Plugins, PluginsSection
    from dwkernel.units import Duration

__all__ = ["Settings"]

OPERATION_TIMEOUT = "24h"
"""The deadline of operations where nobody says another."""


class Settings:
    """The configuration of one kernel: made when it is opened, or when somebody asks for it."""

    def __init__(self, source: Any, options: Mapping[str, Any], timeout: Duration | None) -> None:
        """Read `source`; `options` of `dwkernel.open` that were given win over it.

        Raises:
            Unavailable: `config.file`
            Invalid: `config.syntax`, `config.unknown`, `config.value`, `unit.invalid`

        """
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._kernel: weakref.ref[Kernel] | None = None
        self._given = {name: value for name, value in options.items() if value is not None}
        self.timeout_s = parse_duration(OPERATION_TIMEOUT if timeout is None else timeout)
        self._call = {f"store.{name}": value for name, value in self._given.items()}
        if timeout is not None:
            self._call["limits.timeout"] = timeout
        self._made: Configuration | None = None
        self._is_own = True
        self._is_closed = False
        # What of plugins was looked at last, before a subscriber hears of changes.
        self._plugins_section: Any = None
        # Whether the program said where its configuration is; variables alone are not meant so.
        self.has_source = source is not None
        if source is not None or has_variables():
            self._made = self._read(source)
            if timeout is None or self._is_own:
                self.timeout_s = float(self._made.current.limits.timeout)

    def _read(self, source: Any) -> Configuration:
        from dwkernel.config.manager import Configuration  # noqa: PLC0415 - it loads pydantic

        if isinstance(source, Configuration):
            self._is_own = False
            return source
        if hasattr(source, "items"):
            return Configuration(values=_joined(source, self._call))
        try:
            paths = source if isinstance(source, str | os.PathLike) else list(source or ())
        except TypeError:
            text = f"config={source!r} is no file, list of files, dict or Configuration"
            raise errors.new("config.value", text) from None
        return Configuration(paths, values=self._call)

    def option(self, name: str) -> Any:
        """Return an option of `dwkernel.open`: as given, else what the section `store` says."""
        if name in self._given or self._made is None:
            return self._given.get(name)
        value = getattr(self._made.current.store, name)
        return list(value) if isinstance(value, tuple) else value

    def tuning(self) -> dict[str, Any] | None:
        """Return what stays as it is until the next opening."""
        if self._made is None:
            return None
        from dwkernel.config._native import opening_of  # noqa: PLC0415 - only with a configuration

        return opening_of(self._made.current)

    def plugins(self) -> Plugins | None:
        """Return the plugins that the configuration enables, started; they may open drives."""
        if self._made is None:
            return None
        from dwkernel.plugins.joining import before_opening  # noqa: PLC0415 - who has some pays

        self._plugins_section = self._made.current.plugins
        return before_opening(self._made)

    def join(self, kernel: Kernel, plugins: Plugins | None = None) -> Plugins:
        """Let a kernel have plugins, those of its configuration unless others are given."""
        from dwkernel.plugins import joining  # noqa: PLC0415 - as above

        configuration = self.configuration
        joined = joining.adopt(kernel, plugins or joining.configured(configuration))
        end = joining.follow(joined, configuration, since=self._plugins_section)
        self._stops.append(end)
        weakref.finalize(kernel, end)  # one that nobody closed
        if self._is_closed:
            end()
            joined.close()
        return joined

    def follow(self, path: str, use: Callable[[Any], object]) -> None:
        """Have somebody use what stands at a path, now and after each change."""
        from dwkernel.config.following import follow  # noqa: PLC0415 - it loads pydantic

        self._stops.append(follow(self.configuration, path, use))

    @property
    def configuration(self) -> Configuration:
        """The configuration; without a file it is made now."""
        with self._lock:
            if self._made is None:
                made = self._read(None)
                self._plugins_section = made.current.plugins
                self._attach(made)
                self._made = made
            return self._made

    def container_options(self) -> dict[str, Any]:
        """Return what new containers are made with unless somebody says otherwise."""
        if self._made is None:
            return {}
        section = self._made.current.containers
        found = {name: getattr(section, name) for name in type(section).model_fields}
        return {name: str(value) for name, value in found.items() if value is not None}

    def attach(self, kernel: Kernel) -> None:
        """Let a kernel have its limits, and hear of changes."""
        self._kernel = weakref.ref(kernel)
        if self._made is not None:
            self._attach(self._made)

    def _attach(self, made: Configuration) -> None:
        kernel = self._kernel() if self._kernel is not None else None
        if kernel is None:
            return
        if kernel.closed:
            made.close()
            return
        from dwkernel.config._native import enforce  # noqa: PLC0415 - as above
        from dwkernel.config.following import follow  # noqa: PLC0415 - as above

        reference = weakref.ref(kernel)

        def renew(timeout: float) -> None:
            there = reference()
            if there is not None:
                there._timeout_s = float(timeout)  # noqa: SLF001 - of this package

        def awaken(old: object, new: PluginsSection) -> None:
            del old
            from dwkernel.plugins import joining  # noqa: PLC0415 - who has some pays

            joining.awaken(reference, new)

        store, caller = kernel._store, kernel._caller  # noqa: SLF001 - of this package
        self._stops.append(made.on_change("plugins", awaken))
        if self._is_own or "limits.timeout" not in self._call:
            self._stops.append(follow(made, "limits.timeout", renew))
        self._stops.append(enforce(made, store, caller))
        self._stops.append(follow(made, "plugins", _beginner(reference, self._plugins_section)))
        self._stops.append(made.announce_to(_announcer(reference)))

    def close(self) -> None:
        """End what was begun; a configuration that the program made goes on."""
        self._is_closed = True
        stops, self._stops = self._stops, []
        for stop in stops:
            stop()
        if self._made is not None and self._is_own:
            self._made.close()


def _joined(source: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dict that was given, with what the call says on top."""
    from dwkernel.config.resolving import call_layer  # noqa: PLC0415 - it loads pydantic

    below = call_layer(source)
    sections = {path.partition(".")[0] for path in call}
    if any(not isinstance(below.tree.get(name, {}), dict) for name in sections):
        return dict(below.tree)  # a mistake, which would be hidden
    return dict(call_layer(call, below).tree)


def _beginner(reference: weakref.ref[Kernel], before: Any) -> Callable[[Any], None]:
    """Return what lets a kernel have plugins as soon as the configuration enables some.

    It does so on a thread of its own: a change does not wait for plugins that start.
    """

    def begin() -> None:
        kernel = reference()
        if kernel is not None:
            with contextlib.suppress(errors.State):  # closed meanwhile
                _ = kernel.plugins

    def heard(section: Any) -> None:
        kernel = reference()
        has_some = kernel is not None and kernel._plugins is not None  # noqa: SLF001 - of this package
        is_wanted = section.enabled or any(one.enabled for one in section.tenants.values())
        if is_wanted and not has_some and section != before:
            threading.Thread(target=begin, name="dwk-plugins-begin", daemon=True).start()

    return heard


def _announcer(reference: weakref.ref[Kernel]) -> Callable[[str, dict[str, Any]], None]:
    """Return what publishes on a kernel's bus, in memory; nobody is waited for."""

    def announce(subject: str, data: dict[str, Any]) -> None:
        kernel = reference()
        bus = None if kernel is None else kernel._bus  # noqa: SLF001 - of this package
        if bus is not None:
            # Without a bus there is no subscriber. Who has no room now has missed it.
            with contextlib.suppress(errors.Full, errors.State):
                text = json.dumps(data, ensure_ascii=False).encode(errors="backslashreplace")
                bus.publish(subject, text, schema="dwkernel.event.v1", timeout=0)

    return announce
