"""A plugin in a process of its own, as the kernel sees it: an object like any other.

It is written as one that runs in the kernel's process; `dwkernel.plugins.guest` is the side that
runs it. What crosses is plain data and what `dwkernel.plugins.kinds.crossing` makes of it. Kinds
whose objects hand out others (drives, doors, jobs, sinks, stages of an index) can't be confined.
"""

from __future__ import annotations

import functools
import inspect
import site
import sysconfig
import threading
import time
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import fitting, kinds, promises
from dwkernel.plugins.handle import OF_THE_KERNEL
from dwkernel.plugins.kinds import crossing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.life import Context
    from dwkernel.plugins.manifest import Manifest
    from dwkernel.plugins.output import Log

__all__ = ["Remote", "confine"]

_GUEST = "dwkernel.plugins.guest:Guest"
# How long its process may take to end once it was told to.
_STOP_S = 5.0
# How long one that died too often is left alone before it is started for whoever asks.
_REST_S = 60.0
# A codec takes blocks of up to 16 MiB, and may make them longer.
_CODEC_BYTES = 32 << 20


def confine(found: Found, folder: Path, log: Log) -> Remote:
    """Start a plugin in a process of its own, which is started again when it dies.

    Args:
        found: which.
        folder: a copy of its files that nobody changes.
        log: takes what it prints, and when its process ended.

    Raises:
        Unsupported: `plugin.sandbox`
        Invalid: `plugin.load`, `plugin.kind`, `plugin.manifest`
        Timeout: `plugin.timeout`; Unavailable: `plugin.died`

    """
    said = found.manifest
    fitting.hold_to_confinement(said)
    from dwkernel.plugins import confined  # noqa: PLC0415 - who has none starts no process

    given: dict[str, Any] = dict(said.limits)
    if "codec" in said.kinds:
        given.setdefault("message_bytes", _CODEC_BYTES)
    asked = said.permissions
    plan = {"id": said.id, "entry": said.entry, "kinds": list(said.kinds), "model": said.model}
    spec = confined.Spec(
        said.id,
        folder,
        _GUEST,
        version=str(said.version),
        config=plan,
        permissions=confined.Permissions(
            read=asked.read,
            write=asked.write,
            libraries=_libraries() if asked.libraries else (),
            network=asked.network,
            environment=asked.environment,
            subprocess=asked.subprocess,
        ),
        limits=confined.Limits(**given),
        package=True,
    )
    return Remote(said, functools.partial(confined.Supervisor, spec), log)


def _libraries() -> tuple[str, ...]:
    """Return the folders that hold what is installed beside this package."""
    paths = sysconfig.get_paths()
    own = [paths["purelib"], paths["platlib"]]
    return tuple(dict.fromkeys([*own, *site.getsitepackages()]))


class Remote:
    """Stands for a plugin that runs elsewhere, with the methods of its kinds and its life.

    Names that begin with `_` or `guest_` are its own; all others are the plugin's.
    """

    def __init__(self, manifest: Manifest, start: Callable[..., Any], log: Log) -> None:
        """Start it, and hold it to its manifest.

        Args:
            manifest: what it says of itself.
            start: makes what answers calls. It is given, by name, `on_start` (each new process),
                `on_exit` (why one ended) and `on_print` (a line).
            log: takes what it prints, and when its process ended.

        Raises:
            Invalid: `plugin.kind`, `plugin.manifest`, and what `start` raises

        """
        self._manifest = manifest
        self._log = log
        self._lock = threading.Lock()
        # What the process was told: the next one is told so, too.
        self._greeting: dict[str, Any] | None = None
        self._steps: tuple[str, ...] = ()
        self._methods: frozenset[str] = frozenset()
        self._is_stopping = False
        self._process = start(
            on_start=self._again, on_exit=self._ended, on_print=lambda line: log.write(f"{line}\n")
        )
        try:
            self._take(self._process.call("guest_about"))
            promises.hold(manifest, self)
        except BaseException:
            self.guest_end()
            raise

    def _take(self, about: Any) -> None:
        """Hold it to its manifest; what it says of itself is believed of nothing else."""
        said = self._manifest
        try:
            lacks = {kind: [str(one)[:200] for one in about["lacks"][kind]] for kind in said.kinds}
            methods = frozenset(name for name in about["methods"] if name.isidentifier())
            attributes = dict(about["attributes"])
            wrong = [text for text in about["versions"] if text != str(said.version)]
            who = str(about["type"])[:100]
        except (AttributeError, KeyError, TypeError, ValueError):
            text = f"{said.id} does not say what it is"
            raise errors.new("plugin.load", text, id=said.id) from None
        if wrong:
            text = f"{said.id}: its manifest says version {said.version}, and its code {wrong[0]}"
            raise errors.new("plugin.manifest", text, id=said.id)
        for kind, names in lacks.items():
            if names:
                raise kinds.lacking(kind, who, names)
        self._methods = methods
        for name, value in attributes.items():
            if _ATTRIBUTES.get(name) is not None and isinstance(value, _ATTRIBUTES[name]):
                setattr(self, name, value)
        shapes: dict[str, Any] = {}
        for kind in said.kinds:
            shapes |= vars(kinds.protocol(kind))
        for name in methods:
            if not name.startswith(("_", "guest_")) and not hasattr(Remote, name):
                setattr(self, name, _bound(self, name, shapes.get(name)))

    def guest_status(self) -> Any:
        """Return what is known of its process."""
        return self._process.status()

    def handshake(self, context: Context) -> None:
        """Let it meet the kernel."""
        about = {"version": context.version, "api_version": context.api_version}
        self._greeting = {**about, "config": context.config}
        self._ask("handshake", self._greeting)

    def guest_configure(self, config: Mapping[str, Any]) -> None:
        """Have the model of its configuration take it.

        Raises:
            Invalid: `plugin.option`

        """
        try:
            self._process.call("guest_configure", dict(config))
        except errors.Internal as error:
            text = f"the configuration of {self._manifest.id} is refused: "
            text += f"{error.details['type']}: {error.details['text']}"
            raise errors.new("plugin.option", text, id=self._manifest.id) from None

    def start(self) -> None:
        """Let it begin."""
        self._step("start", "start")

    def pause(self) -> None:
        """Let it rest."""
        self._step("pause", "start", "pause")

    def resume(self) -> None:
        """Let it go on."""
        self._step("resume", "start")

    def health(self) -> Any:
        """Ask how it does: at least it answers."""
        return self._ask("health" if "health" in self._methods else "guest_about")

    def drain(self, deadline_s: float) -> None:
        """Let it finish what it has begun."""
        if "drain" in self._methods:
            self._ask("drain", float(deadline_s))

    def stop(self) -> None:
        """End it, and its process whatever it says."""
        try:
            if "stop" in self._methods:
                self._ask("stop")
        finally:
            self.guest_end()

    def guest_end(self) -> None:
        """End its process, if that was not done yet."""
        self._is_stopping = True
        self._process.stop(_STOP_S)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Call a method of it.

        Raises:
            what it raises of `dwkernel.errors`; Internal: `plugin.failed`; Timeout:
            `plugin.timeout`; Unavailable: `plugin.died`, `plugin.quarantined`

        """
        given = [crossing.plain_of(one) for one in arguments]
        try:
            answer = self._call(name, given)
        except errors.Internal as error:
            raise _answered(error) from None
        return crossing.result(name, answer)

    def _call(self, name: str, given: list[Any]) -> Any:
        try:
            return self._process.call(name, *given)
        except errors.Unavailable as error:
            # Whoever asks does so seldom by now (see `Health`): it is started for them.
            if error.code != "plugin.quarantined" or not self._rested():
                raise
        return self._process.call(name, *given)

    def _rested(self) -> bool:
        """Start it again if it was left alone for long enough; return whether that was so."""
        with self._lock:
            status = self._process.status()
            if status.state == "quarantined":
                if time.time() - status.since < _REST_S:
                    return False
                self._process.restart()
        return True

    def _step(self, name: str, *steps: str) -> None:
        if name in self._methods:
            self._ask(name)
        self._steps = steps

    def _again(self, process: Any) -> None:
        """Bring a new process to where the old one was: not to its state, which is gone."""
        if self._greeting is not None:
            process.call("handshake", self._greeting)
        for name in self._steps:
            if name in self._methods:
                process.call(name)

    def _ended(self, reason: str) -> None:
        if not self._is_stopping:
            self._log.notice(f"its process ended: {reason}")


_ATTRIBUTES: dict[str, Any] = {"name": str, "on_failure": str, "timeout_s": (int, float)}


def _bound(remote: Remote, name: str, shape: Any) -> Any:
    """Return a method that asks the other side, and takes what that of its kind does."""

    def call(*arguments: Any) -> Any:
        return remote._ask(name, *arguments)  # noqa: SLF001 - its own

    if inspect.isfunction(shape):
        signature = inspect.signature(shape)
        own = list(signature.parameters.values())[1:]
        call.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]  # PEP 362
    return call


def _answered(error: errors.DwError) -> errors.DwError:
    """Return the error of `dwkernel.errors` that the plugin raised, if it was one."""
    code = error.details.get("error_code", "")
    known = errors.registry().get(code)
    if known is None or code in OF_THE_KERNEL:
        return error
    return errors.class_of(known.kind)(error.details["text"], code)
