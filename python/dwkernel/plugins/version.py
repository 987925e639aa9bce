"""One version of a plugin at work: its modules, its instance, its life."""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import effects, fitting, loader, promises, schema, tree, vouching
from dwkernel.plugins.life import Context, Life
from dwkernel.plugins.manifest import API_VERSION
from dwkernel.plugins.proof import Proof
from dwkernel.plugins.watchdog import bare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.output import Log
    from dwkernel.plugins.settings import PluginsSection
    from dwkernel.plugins.swap import Slot
    from dwkernel.plugins.watchdog import Watchdog

__all__ = ["Version", "Workshop"]

# How long it may take to look through all objects, on a busy machine; code of a plugin may hang.
_UNLOAD_S = 10.0


@dataclass
class Version:
    """A version of a plugin.

    Attributes:
        found: what it was made from.
        hash: of its files; empty for the kernel's own.
        life: its life cycle.
        instance: what is called; None once it is forgotten.

    """

    found: Found
    hash: str
    instance: Any
    life: Life
    loaded: loader.Loaded | None = None
    is_required: bool = True
    stage: Path | None = None

    @property
    def namespace(self) -> str:
        """The name of its outermost module; empty for the kernel's own."""
        return self.loaded.namespace if self.loaded else ""

    def end(self, limit_s: float | None = None) -> list[str]:
        """Stop it, whatever happens; return what went wrong, for people."""
        wrong = []
        try:
            self.life.stop(limit_s)
        except errors.DwError as error:
            wrong.append(str(error))
        return wrong

    def unload(self) -> Proof:
        """Take it out of the interpreter, and let go of it."""
        proof = self.loaded.unload() if self.loaded else Proof("", [])
        if self.loaded is not None:
            proof.watch("its instance", self.instance)
        if self.stage is not None:
            self.instance.guest_end()
            shutil.rmtree(self.stage, ignore_errors=True)
        self.life.forget()
        self.instance = self.loaded = None
        return proof

    def vanish(self, watchdog: Watchdog, proof_s: float) -> list[str]:
        """Unload it on a thread of its own: what is collected may still run code of it, and hang.

        Returns:
            What is still there after `proof_s` seconds, and who holds it.

        """
        try:
            alive: list[str] = watchdog.step(
                "unloading", lambda: self.unload().settle(proof_s), proof_s + _UNLOAD_S
            )
        except errors.DwError as error:
            return [str(bare(error))]
        return alive

    def leaked(self) -> list[str]:
        """Return the threads that run its code, named after it."""
        if not self.namespace:
            return []
        label = f"plugin:{self.found.id}"
        return effects.leaked_threads(self.namespace, label)


class Workshop:
    """Makes versions of plugins, as the section says."""

    def __init__(
        self,
        section: Callable[[], PluginsSection],
        confine: Callable[[Found, Path, Log], Any] | None = None,
    ) -> None:
        """Begin.

        Args:
            section: returns the section as it is now.
            confine: makes an object that stands for a plugin in a process of its own, from what
                was found, a copy of its files, and its log. The object has the methods of the
                plugin, and those of the life cycle. By default `dwkernel.plugins.remote.confine`.

        """
        self._section = section
        self._confine = confine or _confine
        self._stages = loader.Stages(section().stage)

    def make(self, found: Found, log: Log, watchdog: Watchdog) -> Version:
        """Load a version and make its instance; it has not met the kernel yet.

        Raises:
            Denied: `plugin.permission`, `plugin.signature`
            Corrupt: `plugin.hash`
            Invalid: `plugin.load`, `plugin.manifest`, `plugin.kind`, `plugin.option`
            Unsupported: `plugin.sandbox`
            Internal: `plugin.failed`
            Timeout: `plugin.timeout`

        After an error nothing of it is left, unless it hangs.

        """
        section = self._section()
        fitting.hold_to_grants(section, found.manifest)
        limits = section.limits.limits()
        if found.manifest.run == "confined":
            return self._confined(found, log, watchdog)
        loaded = self._loaded(found, log, watchdog, limits.load)
        try:
            instance = watchdog.step("making", loaded.make, limits.load)
            is_required = promises.hold_apart(found.manifest, instance, watchdog, limits.load)
        except BaseException:
            loaded.unload()
            raise
        life = Life(instance, watchdog, limits)
        return Version(found, loaded.hash, instance, life, loaded, is_required)

    def own(self, found: Found, make: Callable[[], Any], watchdog: Watchdog) -> Version:
        """Make one of the kernel's own."""
        instance = make()
        promises.hold(found.manifest, instance)
        return Version(
            found, "", instance, Life(instance, watchdog, self._section().limits.limits())
        )

    def context(
        self, version: Version, log: Log, watchdog: Watchdog, needs: Mapping[str, Slot[Any]]
    ) -> Context:
        """Return what a version gets in its handshake.

        Raises:
            Invalid: `plugin.option`: its configuration is not what it asks for

        """
        said = version.found.manifest
        given = self._section().config.get(said.id, {})
        config = self._config(version, given, watchdog)
        return Context(said.id, str(said.version), API_VERSION, config, log, needs)

    def _config(self, version: Version, given: Mapping[str, Any], watchdog: Watchdog) -> Any:
        place, loaded = version.found.manifest.model, version.loaded
        if place is None:
            return schema.filled(version.found.manifest.config, given)
        if loaded is None:
            version.instance.guest_configure(given)
            return dict(given)
        limit_s = self._section().limits.load
        try:
            return watchdog.step("configuring", lambda: loaded.attribute(place)(**given), limit_s)
        except errors.Internal as error:
            # Only the message: a model's own error would keep its class.
            text = f"the configuration of {version.found.id} is refused: {error.__cause__}"
            raise errors.new("plugin.option", text, id=version.found.id) from None

    def _confined(self, found: Found, log: Log, watchdog: Watchdog) -> Version:
        """Start it in a process of its own, from a copy that nobody changes."""
        assert found.home is not None  # noqa: S101 - the kernel's own are trusted
        section = self._section()
        stage = self._stages.new(f"{found.id}-{secrets.token_hex(4)}")
        try:
            stage.mkdir(mode=0o700)
        except OSError as error:
            text = f"no folder for the files of {found.id} can be made: {error}"
            raise errors.new("plugin.load", text, id=found.id) from error
        # A package is imported by its name: the folder is the one that it is in.
        module = found.manifest.entry.partition(":")[0].partition(".")[0]
        is_package = (found.home / "__init__.py").is_file()
        try:
            files = tree.copy(found.home, stage / (module if is_package else "files"))
            self._vouch(found, files.hash)
            loader.agree(found, stage / (module if is_package else "files"))
            folder = stage if is_package else stage / "files"
            instance = self._confine(found, folder, log)
            life = Life(instance, watchdog, section.limits.limits())
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        is_required = getattr(instance, "on_failure", None) != "allow"
        return Version(found, files.hash, instance, life, is_required=is_required, stage=stage)

    def _vouch(self, found: Found, tree_hash: str) -> None:
        section = self._section()
        vouching.verify(
            found, tree_hash, require_hash=section.require_hash, keys=section.trusted_keys
        )

    def _loaded(self, found: Found, log: Log, watchdog: Watchdog, limit_s: float) -> loader.Loaded:
        """Import it, on a thread of its own; one that comes too late is unloaded there."""
        lock = threading.Lock()
        is_late = False

        def importing() -> loader.Loaded | errors.DwError | None:
            try:
                made = loader.load(found, self._stages, log, lambda it: self._vouch(found, it))
            except errors.DwError as error:
                return error  # ours: what the plugin raises is `plugin.load` by now
            with lock:
                if is_late:
                    made.unload()
                    return None
            return made

        try:
            result = watchdog.step("importing", importing, limit_s)
        except (errors.Timeout, KeyboardInterrupt):
            with lock:
                is_late = True
            raise
        if isinstance(result, errors.DwError):
            raise result
        assert isinstance(result, loader.Loaded)  # noqa: S101 - it was not late
        return result


def _confine(found: Found, folder: Path, log: Log) -> Any:
    from dwkernel.plugins import remote  # noqa: PLC0415 - who confines pays for it

    return remote.confine(found, folder, log)
