"""Which sections there are, and the model that they make together.

`register` may be called at any time: configurations in use are read anew with the larger model,
and keep their values.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import (
    BaseModel,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    create_model,
)

from dwkernel import errors
from dwkernel.config.layers import route_of
from dwkernel.config.looking import field_at, is_table
from dwkernel.config.modes import MODES, Default
from dwkernel.config.section import Finding, setting
from dwkernel.config.sections import Config
from dwkernel.config.subscribers import refuse_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LATER", "Check", "Shape", "joining", "leave", "register", "shape", "unregister"]

LATER: list[str] = ["dwkernel.jobs.registering", "dwkernel.plugins.registering"]
"""Modules of dwkernel that register sections: loaded before the first model is made."""

Check = Callable[[Any, Any], Iterable[Finding]]
"""What a section checks besides its fields: `check(now, before)`."""

_log = logging.getLogger("dwkernel.config")

_KEY_LETTERS_MAX = 64


class Shape:
    """What a configuration looks like at one time: the model, and who registered which part.

    Attributes:
        model: the class of configurations.
        sections: registered sections by name.
        parts: registered parts of a section's open table, by their route.
        modes: what registered sections set in each mode.
        checks: what registered sections check besides their fields, by their route.

    """

    def __init__(
        self,
        sections: Mapping[str, type[BaseModel]],
        parts: Mapping[tuple[str, ...], type[BaseModel]],
        modes: Mapping[str, tuple[Default, ...]],
        checks: Mapping[tuple[str, ...], Check] | None = None,
    ) -> None:
        """Make the model."""
        self.sections = dict(sections)
        self.parts = dict(parts)
        self.modes = dict(modes)
        self.checks = dict(checks or {})
        fields: dict[str, Any] = {
            name: (model, setting(about=_first_line(model), default_factory=model))
            for name, model in sections.items()
        }
        made: type[Config] = create_model("Config", __base__=Config, **fields) if fields else Config
        self.model = made

    def defaults_of(self, mode: str) -> tuple[Default, ...]:
        """Return what a mode sets: of dwkernel's own sections, and of registered ones."""
        own = MODES[mode][1] if mode in MODES else ()
        return own + self.modes.get(mode, ())


class _User(Protocol):
    """A configuration in use."""

    def reshape(self, shape: Shape) -> None:
        """Read everything with another shape; raises if that does not go."""

    def forked(self) -> None:
        """Begin anew in a forked child."""


_lock = threading.RLock()
_shape: Shape | None = None
# Whether the modules in `LATER` have been loaded, and whether somebody does that now.
_is_whole = False
_is_growing = False
_users: weakref.WeakSet[Any] = weakref.WeakSet()


def shape() -> Shape:
    """Return the shape of now."""
    if _shape is None or not _is_whole:
        with _lock:
            return _grown()
    return _shape


def _grown() -> Shape:
    """Return the shape with dwkernel's own sections; after an interruption the next one goes on."""
    global _shape, _is_whole, _is_growing  # noqa: PLW0603 - one for the process, as registrations are
    if _shape is None:
        _shape = Shape({}, {}, {})
    # The modules that register ask for the shape, too.
    if not (_is_whole or _is_growing):
        _is_growing = True
        try:
            for name in LATER:
                importlib.import_module(name)
            _is_whole = True
        finally:
            _is_growing = False
    return _shape


@contextlib.contextmanager
def joining(user: _User) -> Iterator[Shape]:
    """Hold the shape while a configuration is made; if that goes well, it hears of later ones."""
    shape()
    with _lock:
        yield shape()
        _users.add(user)


def leave(user: _User) -> None:
    """Tell a configuration nothing any more."""
    _users.discard(user)


def register(
    name: str,
    model: type[BaseModel],
    modes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    check: Check | None = None,
    replace: bool = False,
) -> None:
    """Make a section known.

    Args:
        name: of the section, such as `"jobs"`; or a part of a section's open table (a field of the
            type `Table`), such as `"plugins.config.audit"`, for those that come while a program
            runs: what files say of it is kept unseen until it is registered, and validated then.
        model: a `Section`, or another frozen pydantic model that forbids unknown fields.
        modes: what the section's fields are by default in an operating mode: `{"nas": {"at": 5}}`.
        check: `check(now, before)` returns what is wrong though each field is right, such as what
            another file asks for: `Finding`s. `before` is what counts now, where that is known;
            then only what is new is to be looked at. It is called by `dwkernel config check` and
            by each change of the section, which waits for it, and not when a program starts.
        replace: take the place of another model, as a new version of a plugin does.

    Configurations in use get the section at once, as a new version of theirs. If what their files
    say of it does not fit, it is not registered.

    Raises:
        Invalid: `config.value`: no name, another model has it, no such model, values in use do not
            fit, called in a subscriber's callback
        Invalid: `config.unknown`: there is no such table; a file has fields that the model lacks

    """
    refuse_inside()
    route = route_of(name)
    shape()
    with _lock:
        before = shape()
        taken = before.sections.get(name) or before.parts.get(route)
        if taken is model and not modes and check is None:
            return
        if taken is not None and not replace and not _same(taken, model):
            text = f"the section {name!r} belongs to {taken.__module__}.{taken.__qualname__}"
            raise errors.new("config.value", text, section=name)
        _check_model(name, model)
        _check_name(before, route)
        sections, parts, by_mode = dict(before.sections), dict(before.parts), dict(before.modes)
        checks = {key: one for key, one in before.checks.items() if key != route or taken is model}
        if check is not None:
            checks[route] = check
        if len(route) == 1:
            sections[name] = model
        else:
            parts[route] = model
        for mode, fields in (modes or {}).items():
            if mode not in MODES:
                text = f"there is no mode {mode!r}: one of {', '.join(MODES)}"
                raise errors.new("config.value", text, section=name)
            kept = tuple(one for one in by_mode.get(mode, ()) if not _is_of(one, name))
            new = (Default(f"{name}.{key}", value, "") for key, value in fields.items())
            by_mode[mode] = (*kept, *new)
        _use(before, Shape(sections, parts, by_mode, checks))


def unregister(name: str) -> bool:
    """Forget a section; returns whether there was one.

    Raises:
        Invalid: `config.unknown`: a file of a configuration in use still has it

    """
    refuse_inside()
    shape()
    with _lock:
        before = shape()
        route = route_of(name)
        sections = {key: one for key, one in before.sections.items() if key != name}
        parts = {key: one for key, one in before.parts.items() if key != route}
        if len(sections) + len(parts) == len(before.sections) + len(before.parts):
            return False
        modes = {
            mode: tuple(one for one in set_ if not _is_of(one, name))
            for mode, set_ in before.modes.items()
        }
        checks = {key: one for key, one in before.checks.items() if key != route}
        _use(before, Shape(sections, parts, modes, checks))
        return True


def _use(before: Shape, after: Shape) -> None:
    """Let all configurations have the new shape, or none."""
    global _shape  # noqa: PLW0603 - one for the process
    done: list[_User] = []
    _shape = after
    try:
        for user in list(_users):
            user.reshape(after)
            done.append(user)
    except BaseException:
        _shape = before
        for user in done:
            try:
                user.reshape(before)
            except errors.DwError:
                _log.exception("a configuration in use cannot go back to the sections before")
        raise


def _same(one: type[BaseModel], other: type[BaseModel]) -> bool:
    """Return whether a module was merely loaded twice."""
    names = (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    return names and one.model_json_schema() == other.model_json_schema()


def _is_of(default: Default, name: str) -> bool:
    return default.path.startswith(f"{name}.")


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n")[0]


def _check_model(name: str, model: object) -> None:
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    config = model.model_config if is_model else {}  # type: ignore[attr-defined]  # just seen
    if not (config.get("frozen") and config.get("extra") == "forbid"):
        text = f"the model of the section {name!r} is no dwkernel.config.Section"
        raise errors.new("config.value", text, section=name)
    try:
        model.model_rebuild()  # type: ignore[attr-defined]  # just seen
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        text = f"the model of the section {name!r} is not whole: {str(error).splitlines()[0]}"
        raise errors.new("config.value", text, section=name) from None


def _check_name(before: Shape, route: tuple[str, ...]) -> None:
    name = ".".join(route)
    first = route[0]
    if len(route) == 1:
        is_name = first.isidentifier() and first.isascii() and first == first.lower()
        if not is_name or first.startswith("_") or "__" in first or len(first) > _KEY_LETTERS_MAX:
            text = f"{name!r} is no name of a section: small letters, digits and single _"
            raise errors.new("config.value", text, section=name)
        if hasattr(Config, first) or first in Config.model_fields:
            text = f"the section {name!r} belongs to dwkernel"
            raise errors.new("config.value", text, section=name)
        return
    table = field_at(before, route[:-1])
    if not all(route) or table is None or not is_table(table):
        text = f"{'.'.join(route[:-1])!r} is no open table that {route[-1]!r} could be a part of"
        raise errors.new("config.unknown", text, section=name)


def _forked() -> None:
    """Begin anew in a forked child: whoever held the lock is not there."""
    global _lock, _is_growing
    _lock, _is_growing = threading.RLock(), False
    for user in list(_users):
        user.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
