"""Secrets by reference: the configuration says where one is, and who needs it asks then.

>>> import os
>>> os.environ["DOC_KEY"] = "s3cr3t"
>>> key = Secret("env:DOC_KEY")
>>> key, key.reveal()
(Secret('env:DOC_KEY'), 's3cr3t')
"""

from __future__ import annotations

import hmac
import logging
import os
import stat
from typing import TYPE_CHECKING, Any, NoReturn, Self

from pydantic_core import PydanticCustomError, core_schema

from dwkernel import errors
from dwkernel.config.reading import read_plain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Secret", "register_secret_source"]

_log = logging.getLogger("dwkernel.config")

# A key, a token, a certificate; not a file that somebody confused with one.
_FILE_BYTES_MAX = 64 << 10
_LITERAL = "literal"
_HOW = "env:NAME, file:/path, plugin:<source>:<name>"


class Secret:
    """Where a secret is. Its text is read when it is asked for, and is shown nowhere.

    `str`, `repr`, JSON, pickles and errors hold the reference only. `literal:text` holds the text
    itself: for programs that have it already and give it in the call. A pickle leaves it behind.
    """

    __slots__ = ("_rest", "scheme")

    scheme: str

    def __init__(self, reference: str) -> None:
        """Take a reference: `env:NAME`, `file:/path`, `plugin:<source>:<name>`, `literal:text`.

        Raises:
            Invalid: `config.value`; the message does not show what was given

        """
        problem = _problem(reference)
        if problem:
            raise errors.new("config.value", problem)
        self.scheme, _, self._rest = reference.partition(":")

    @property
    def reference(self) -> str:
        """The reference; of a literal no more than that it is one."""
        return f"{self.scheme}:…" if self.scheme == _LITERAL else f"{self.scheme}:{self._rest}"

    @property
    def is_literal(self) -> bool:
        """Whether the text itself was given."""
        return self.scheme == _LITERAL

    def reveal(self) -> str:
        """Read and return the secret's text, each time anew.

        A variable as it is; a file whole, without one line end at its end, up to 64 KiB of UTF-8. A
        file that everybody may read is told in the log.

        Raises:
            Unavailable: `config.secret`: not there, not readable, no such source

        """
        if self.scheme == _LITERAL:
            return self._rest
        if self.scheme == "env":
            text = os.environ.get(self._rest)
            if text is None:
                self._refuse("there is no such variable")
            return text
        if self.scheme == "file":
            return self._from_file()
        return self._from_source()

    def _from_file(self) -> str:
        problem = text = ""
        try:
            data, mode = read_plain(self._rest, _FILE_BYTES_MAX)
            text = data.decode()
            if len(data) > _FILE_BYTES_MAX:
                problem = f"it is longer than {_FILE_BYTES_MAX >> 10} KiB"
            elif mode & stat.S_IROTH:
                _log.warning("everybody may read the secret %s: chmod o-r", self)
        except OSError as error:
            problem = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            problem = "it is not UTF-8"
        if problem:
            # Not inside `except`: the context of an error could hold what was read.
            self._refuse(problem)
        return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text

    def _from_source(self) -> str:
        source = _sources.get(self.scheme)
        if source is None:
            self._refuse(f"nobody registered a source {self.scheme!r}")
        problem, text = "", None
        try:
            text = source(self._rest)
        except Exception as error:  # noqa: BLE001 - sources are plugins
            # What it says is left out: it may quote the secret.
            problem = f"its source raised {type(error).__name__}"
            problem += f" [{error.code}]" if isinstance(error, errors.DwError) else ""
        if problem or not isinstance(text, str):
            self._refuse(problem or "its source did not return text")
        return text

    def _refuse(self, why: str) -> NoReturn:
        text = f"the secret {self} cannot be had: {why}"
        raise errors.new("config.secret", text, reference=self)

    def __str__(self) -> str:
        """Return the reference."""
        return self.reference

    def __repr__(self) -> str:
        """Return the reference, never the text."""
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        """Compare references, in constant time where they hold a text."""
        if not isinstance(other, Secret):
            return NotImplemented
        same = hmac.compare_digest(self._rest.encode(), other._rest.encode())
        return self.scheme == other.scheme and same

    def __hash__(self) -> int:
        """Hash what may be seen."""
        return hash(self.reference)

    def __copy__(self) -> Self:
        """Return itself: it never changes."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: it never changes."""
        return self

    def __reduce__(self) -> tuple[Callable[[str], Secret], tuple[str]]:
        """Cross a process boundary without the text of a literal."""
        return _unpickled, ("" if self.is_literal else self.reference,)

    @classmethod
    def of(cls, given: object) -> Secret:
        """Take a reference; raises what pydantic makes an error of."""
        if isinstance(given, cls):
            return given
        problem = _problem(given)
        if problem:
            raise PydanticCustomError("secret", "{problem}", {"problem": problem})
        return cls(str(given))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Be validated by `of`, and be the reference in JSON."""
        shown = core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        return core_schema.no_info_plain_validator_function(cls.of, serialization=shown)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Be text that says where."""
        return {"type": "string", "pattern": "^[a-z][a-z0-9_-]*:.+", "examples": ["env:NAME"]}


def _unpickled(reference: str) -> Secret:
    # A literal's text stays in the process that was given it.
    return Secret(reference or "left-behind:literal")


def _problem(given: object) -> str:
    """Return what is wrong with a reference; the text never quotes it."""
    text = given if isinstance(given, str) else ""
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or scheme not in {*_SCHEMES, *_sources}:
        return f"a secret is given by reference, not as it is: {_HOW}"
    if scheme == "file" and not rest.startswith("/"):
        return "a secret's file has an absolute path: file:/path"
    if scheme == "env" and ("=" in rest or "\0" in rest):
        return "a secret's variable has a name: env:NAME"
    return ""


_SCHEMES = ("env", "file", "plugin", _LITERAL, "left-behind")
_sources: dict[str, Callable[[str], str]] = {}


def register_secret_source(
    scheme: str, resolve: Callable[[str], str] | None
) -> Callable[[str], str] | None:
    """Say who knows the secrets of `scheme:…`.

    Args:
        scheme: such as `"plugin"`; 2 to 32 of a-z, 0-9, `-` and `_`, from a letter on.
        resolve: gets what follows `scheme:`, returns the text, may raise anything. It is called on
            the thread that asks, each time. None takes the source away.

    Returns:
        Who knew them before.

    Raises:
        Invalid: `config.value`: the scheme is a built-in one, or no name

    """
    plain = scheme.replace("-", "_")
    is_name = plain.isidentifier() and plain.isascii() and plain.islower() and plain[0] != "_"
    if scheme in ("env", "file", _LITERAL, "left-behind") or not is_name:
        text = f"{scheme!r} cannot be the name of a source of secrets"
        raise errors.new("config.value", text, scheme=scheme)
    before = _sources.pop(scheme, None)
    if resolve is not None:
        _sources[scheme] = resolve
    return before
