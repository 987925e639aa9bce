"""What fields of the configuration hold: sizes and durations that remember how they were written.

>>> size = ByteSize.of("10 GiB")
>>> int(size), str(size), size == ByteSize.of(10 << 30)
(10737418240, '10 GiB', True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError, core_schema

from dwkernel import errors
from dwkernel.units import format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ByteSize", "Drives", "Labels", "NoneWord", "Seconds", "Table", "frozen"]


class ByteSize(int):
    """A number of bytes: an int, shown as it was written."""

    text: str

    @classmethod
    def of(cls, given: object) -> Self:
        """Take an int or text such as `"10 GiB"`; raises what pydantic makes an error of."""
        if isinstance(given, cls):
            return given
        try:
            number = parse_size(_typed(given, int | str))
        except (errors.Invalid, TypeError):
            text = "a size is a number of bytes, or text such as '64 MiB'"
            raise PydanticCustomError("size", text) from None
        size = cls(number)
        size.text = given.strip() if isinstance(given, str) else _size_text(number)
        return size

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    def __repr__(self) -> str:
        """Return it as TOML has it."""
        return repr(self.text)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[str]]:
        """Keep the text across processes."""
        return type(self).of, (self.text,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Be validated by `of`, and be text in JSON."""
        return _schema(cls.of)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Be a number or text."""
        text = {"type": "string", "examples": ["64 MiB"]}
        return {"anyOf": [{"type": "integer", "minimum": 0}, text]}


class Seconds(float):
    """A duration in seconds: a float, shown as it was written."""

    text: str

    @classmethod
    def of(cls, given: object) -> Self:
        """Take seconds or text such as `"30s"`; raises what pydantic makes an error of."""
        if isinstance(given, cls):
            return given
        try:
            number = parse_duration(_typed(given, int | float | str))
        except (errors.Invalid, TypeError, OverflowError):
            text = "a duration is a number of seconds, or text such as '30s' or '2h'"
            raise PydanticCustomError("duration", text) from None
        duration = cls(number)
        duration.text = given.strip() if isinstance(given, str) else f"{given!r}s"
        return duration

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    def __repr__(self) -> str:
        """Return it as TOML has it."""
        return repr(self.text)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[str]]:
        """Keep the text across processes."""
        return type(self).of, (self.text,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Be validated by `of`, and be text in JSON."""
        return _schema(cls.of)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Be a number or text."""
        text = {"type": "string", "examples": ["30s"]}
        return {"anyOf": [{"type": "number", "minimum": 0}, text]}


def _typed(given: Any, kinds: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, kinds):
        raise TypeError
    return given


def _schema(of: Callable[[object], object]) -> core_schema.CoreSchema:
    shown = core_schema.plain_serializer_function_ser_schema(str, when_used="json")
    return core_schema.no_info_plain_validator_function(of, serialization=shown)


def _size_text(number: int) -> str:
    """Return the short form if nothing is lost by it."""
    text = format_size(number)
    return text if parse_size(text) == number else str(number)


class Table(dict[str, Any]):
    """A table of names that cannot be changed, nor anything in it."""

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        """Copy a dict, deeply."""
        super().__init__({str(name): frozen(part) for name, part in (given or {}).items()})

    def _refuse(self, *_: object, **__: object) -> Any:
        text = "a configuration is not changed in place: kernel.config.set makes a new version"
        raise errors.new("config.value", text)

    __setitem__ = __delitem__ = update = setdefault = clear = pop = popitem = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict that never changes
        """Hash the names only: equal tables have equal ones."""
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[dict[str, Any]]]:
        """Cross a process boundary whole."""
        return type(self), (dict(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Take any table."""
        return core_schema.no_info_after_validator_function(
            cls, core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())
        )


def frozen(value: Any) -> Any:
    """Return a value of TOML as one that cannot be changed."""
    if isinstance(value, Table):
        return value
    if isinstance(value, dict):
        return Table(value)
    if isinstance(value, list | tuple):
        return tuple(frozen(part) for part in value)
    return value


def _none_word(given: Any) -> Any:
    return None if isinstance(given, str) and given.strip().lower() == "none" else given


class NoneWord:
    """What makes `"none"` be None in an optional field: `Annotated[int | None, NoneWord]`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Look for the word before anything else does."""
        return core_schema.no_info_before_validator_function(_none_word, handler(source))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Offer the word in place of null, which TOML does not have."""
        found: dict[str, Any] = handler(schema)
        kinds = [one for one in found.get("anyOf", []) if one != {"type": "null"}]
        return {**found, "anyOf": [*kinds, {"const": "none"}]}


def _drives(given: object) -> int | tuple[str, ...] | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given > 0):
        return given
    is_list = isinstance(given, list | tuple) and all(isinstance(one, str) for one in given)
    if is_list and given:
        return tuple(given)  # type: ignore[arg-type]  # a list of str, as was just seen
    text = "drives are a number from 1 on, or a list of paths and URLs"
    raise PydanticCustomError("drives", text)


class _DrivesSchema:
    """How pydantic sees drives: a plain union would make two errors of one mistake."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(_drives)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        places = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"anyOf": [{"type": "integer", "minimum": 1}, places, {"type": "null"}]}


Drives = Annotated[int | tuple[str, ...] | None, _DrivesSchema]
"""How many drives, or where they are."""
Labels = Annotated[dict[str, dict[str, str]], AfterValidator(Table)]
"""What drives are called by: `{"d1": {"rack": "a"}}`."""
