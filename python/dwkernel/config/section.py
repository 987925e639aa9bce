"""What sections of the configuration are made of.

>>> class Mail(Section):
...     server: str = setting("localhost", "where mail goes", live=True)
>>> Mail().server
'localhost'
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Finding", "Section", "setting"]


class Section(BaseModel):
    """A section: a frozen pydantic model that takes no unknown fields.

    Defaults are validated, too, so that `"30s"` can be written as one. What a validator says is
    shown with the place of the mistake; what was found is shown unless the field is a `Secret`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


def setting(default: Any = ..., about: str = "", *, live: bool = False, **limits: Any) -> Any:
    """Return a field of a section, as pydantic's `Field`.

    Args:
        default: what it is if nobody says; left out, somebody must.
        about: one line that says what it is.
        live: a change counts at once, by whoever subscribes to it; else at the next start.
        limits: what `Field` takes: `ge`, `le`, `max_length`, `strict`, `default_factory`, …

    """
    extra: dict[str, Any] = {"live": live}
    if "default_factory" in limits:
        return Field(description=about, json_schema_extra=extra, **limits)
    return Field(default, description=about, json_schema_extra=extra, **limits)


class Finding(NamedTuple):
    """What a section's own check found: see `register`.

    Attributes:
        path: the keys that lead there, from the section on.
        text: what is wrong, as it follows the path: `"is not known"`.
        kind: what sort of mistake it is; `"unchecked"` is none, and tells that nobody could look.

    """

    path: tuple[str | int, ...]
    text: str
    kind: Literal["value", "unknown", "unchecked"] = "value"
