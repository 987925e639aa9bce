"""The sections that every configuration has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import create_model

from dwkernel.config.modes import Mode  # noqa: TC001 - pydantic reads annotations
from dwkernel.config.section import Section, setting
from dwkernel.config.values import ByteSize, Drives, Labels, NoneWord, Seconds, Table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Config", "Containers", "Limits", "Pool", "Store", "Streams"]

FORMAT = 1


class Store(Section):
    """Which store is opened, and how: what `dwkernel.open` takes."""

    path: Annotated[str | None, NoneWord] = setting(None, "holds pointers and caches of the store")
    drives: Annotated[Drives, NoneWord] = setting(
        None, "how many drives under the path, or a list of paths and URLs"
    )
    geometry: Annotated[str | None, NoneWord] = setting(None, "for a new store, such as 4+2")
    labels: Labels = setting(Table(), "for a new store, what drives are called by")
    read_only: bool = setting(False, "change nothing, let other readers in", strict=True)  # noqa: FBT003 - the default
    force: bool = setting(False, "open what lies beyond the geometry's tolerance", strict=True)  # noqa: FBT003 - the default


class Containers(Section):
    """What new containers are made with, unless the call says otherwise."""

    quota: Annotated[ByteSize | None, NoneWord] = setting(None, "bytes that it may hold", live=True)
    compress: Annotated[str | None, NoneWord] = setting(None, "codec, such as zstd", live=True)


class Limits(Section):
    """What one kernel lets in."""

    timeout: Seconds = setting("24h", "deadline of operations that say none", live=True, gt=0)
    operations: Annotated[int | None, NoneWord] = setting(
        None, "operations under way at once", live=True, ge=1, strict=True
    )
    rate: Annotated[float | None, NoneWord] = setting(
        None, "operations a second", live=True, gt=0, strict=True, allow_inf_nan=False
    )
    burst: Annotated[int | None, NoneWord] = setting(
        None,
        "operations that may come at once within the rate; none: as many as a second has",
        live=True,
        ge=1,
        strict=True,
    )
    object_size: Annotated[ByteSize | None, NoneWord] = setting(
        None, "largest object that is taken", live=True, ge=1
    )


class Pool(Section):
    """How drives are treated."""

    drive_timeout: Seconds = setting(
        "30s",
        "a drive that takes longer has failed; reads wait a quarter of it, at most 2 s",
        gt=0,
    )


class Streams(Section):
    """Sizes and thresholds that all streams of a store share."""

    merge_bytes: ByteSize = setting(
        "4 MiB", "what was committed is merged at so many bytes", ge=1, le=64 << 20
    )
    merge_frames: int = setting(4096, "or at so many commits", ge=1, strict=True)
    delayed_max: int = setting(
        1_000_000, "messages of a stream that may wait to be due", ge=0, strict=True
    )
    keys_max: int = setting(262_144, "keys remembered at a time in compaction", ge=1, strict=True)


class Config(Section):
    """A whole configuration: frozen, typed. Registered sections are fields of a subclass."""

    version: int = setting(FORMAT, "of the format", live=True, ge=FORMAT, le=FORMAT, strict=True)
    mode: Mode = setting("workstation", "which set of defaults counts", live=True)
    store: Store = setting(about="which store, and how it is opened", default_factory=Store)
    containers: Containers = setting(about="of new containers", default_factory=Containers)
    limits: Limits = setting(about="what one kernel lets in", default_factory=Limits)
    pool: Pool = setting(about="how drives are treated", default_factory=Pool)
    streams: Streams = setting(about="of durable streams", default_factory=Streams)

    def __reduce__(self) -> tuple[Callable[..., Config], tuple[dict[str, Any]]]:
        """Cross a process boundary: the class is made anew there, of the sections."""
        return _rebuilt, ({name: getattr(self, name) for name in type(self).model_fields},)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a registered section."""


def _rebuilt(values: dict[str, Any]) -> Config:
    from dwkernel.config.registry import shape  # noqa: PLC0415 - it is made of these sections

    others = {
        name: type(value) for name, value in values.items() if name not in Config.model_fields
    }
    known = shape().model
    there = {name: one.annotation for name, one in known.model_fields.items() if name in others}
    if there == others and values.keys() == known.model_fields.keys():
        return known.model_construct(**values)
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in others.items()}
    model = create_model("Config", __base__=Config, **fields) if fields else Config
    return model.model_construct(**values)
