"""A plugin in a process of its own, as the kernel sees it: an object like any other.

What crosses is plain data: requests become dicts of their fields, and verdicts come as dicts of
theirs, or as text, which refuses with that reason. Kinds whose objects hand out others (drives,
doors, jobs, sinks, stages of an index) can't be confined.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dwkernel import errors
from dwkernel.plugins import kinds
from dwkernel.plugins.kinds.policy import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from dwkernel.plugins.discovery import Found
    from dwkernel.plugins.life import Context
    from dwkernel.plugins.manifest import Manifest

__all__ = ["CONFINABLE", "Remote", "confine"]

CONFINABLE = frozenset(
    {
        "ai_provider",
        "authoriser",
        "codec",
        "key_source",
        "metrics_exporter",
        "policy",
        "principal_source",
        "search_provider",
    }
)
_JUDGES = frozenset({"before", "decide"})
# How long its process may take to end once it was told to.
_STOP_S = 5.0
# A codec takes blocks of up to 16 MiB, and may make them longer.
_CODEC_BYTES = 32 << 20


def confine(found: Found, folder: Path, config: Mapping[str, Any]) -> Remote:
    """Start a plugin in a process of its own, which is started again when it dies.

    Args:
        found: which.
        folder: a copy of its files that nobody changes.
        config: its configuration; its entry is called with it.

    Raises:
        Unsupported: `plugin.sandbox`
        Invalid: `plugin.load`; Timeout: `plugin.timeout`; Unavailable: `plugin.died`

    """
    said = found.manifest
    loose = sorted(set(said.kinds) - CONFINABLE)
    if loose:
        text = f"{said.id} is a {loose[0]}, which can't be confined"
        raise errors.new("plugin.sandbox", text, id=said.id)
    from dwkernel.plugins import confined  # noqa: PLC0415 - who has none starts no process

    is_codec = "codec" in said.kinds
    limits = confined.Limits(message_bytes=_CODEC_BYTES) if is_codec else confined.Limits()
    asked = said.permissions
    permissions = confined.Permissions(
        read=asked.read,
        write=asked.write,
        network=asked.network,
        environment=asked.environment,
        subprocess=asked.subprocess,
    )
    spec = confined.Spec(
        said.id,
        folder,
        said.entry,
        version=str(said.version),
        config=dict(config),
        permissions=permissions,
        limits=limits,
    )
    return Remote(said, confined.Supervisor(spec))


class Remote:
    """Stands for a plugin that runs elsewhere, with the methods of its kinds and its life."""

    def __init__(self, manifest: Manifest, process: Any) -> None:
        """Take what answers calls (`dwkernel.plugins.confined.Supervisor`)."""
        self._process = process
        if "codec" in manifest.kinds:
            self.name = next(iter(manifest.capabilities.get("codec", ())), manifest.id)
        for kind in manifest.kinds:
            for name, method in vars(kinds.protocol(kind)).items():
                if inspect.isfunction(method) and not name.startswith("_"):
                    setattr(self, name, _bound(self, name, method))
        if manifest.state_version:
            # Only then: who has these is taken to have state.
            self.export_state = functools.partial(process.call, "export_state")
            self.import_state = functools.partial(process.call, "import_state")

    def handshake(self, context: Context) -> None:
        """Tell it who it is; it has its configuration already."""
        about = {"id": context.id, "version": context.version, "api_version": context.api_version}
        self._optional("handshake", about)

    def start(self) -> None:
        """Let it begin."""
        self._optional("start")

    def pause(self) -> None:
        """Let it rest."""
        self._optional("pause")

    def resume(self) -> None:
        """Let it go on."""
        self._optional("resume")

    def health(self) -> Any:
        """Ask how it does: at least it answers."""
        return self._optional("health")

    def drain(self, deadline_s: float) -> None:
        """Let it finish what it has begun."""
        self._optional("drain", float(deadline_s))

    def stop(self) -> None:
        """End it, and its process whatever it says."""
        try:
            self._optional("stop")
        finally:
            self._process.stop(_STOP_S)

    def ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of it."""
        result = self._process.call(name, *map(plain_of, arguments))
        return [_verdict(one) for one in result] if name in _JUDGES else result

    def _optional(self, name: str, *arguments: Any) -> Any:
        """Call a method that it may not have."""
        try:
            return self._process.call(name, *arguments)
        except errors.Internal as error:
            if error.details.get("type") != "NoMethodError":
                raise
            return None


def _bound(remote: Remote, name: str, method: Any) -> Any:
    """Return a method that takes what a kind's does, and asks the other side."""

    def call(*arguments: Any) -> Any:
        return remote.ask(name, arguments)

    signature = inspect.signature(method)
    own = list(signature.parameters.values())[1:]
    call.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]  # PEP 362
    return call


def plain_of(value: Any) -> Any:
    """Return an argument as plain data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain_of(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(name): plain_of(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_of(one) for one in value]
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    to_dict = getattr(value, "to_dict", None)
    return plain_of(to_dict()) if to_dict is not None else value


def _verdict(given: Any) -> Verdict:
    """Read a verdict; whatever can't be read refuses."""
    if isinstance(given, str):
        return Verdict.refuse(given)
    if isinstance(given, dict) and given.get("kind", "allow") == "allow":
        return Verdict.annotate(given.get("annotations") or {})
    reason = given.get("reason", "") if isinstance(given, dict) else f"it answered {given!r}"
    return Verdict.refuse(str(reason))
