"""`plugin.toml`: what a plugin says of itself, before a line of it runs.

Everything that is wrong with one is told at once, with its line. What it says is held against the
plugin when that is loaded: a manifest that lies is refused there.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from dwkernel import errors
from dwkernel.plugins import limits, schema
from dwkernel.plugins.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "API_VERSION",
    "FILE_NAME",
    "ID_FORM",
    "Manifest",
    "Permissions",
    "is_id",
    "parse",
    "read",
]

# What plugins are written against. A new minor version adds, a new major one takes away.
API_VERSION = "1.0"
FILE_NAME = "plugin.toml"
BYTES_MAX = 256 << 10
# Of a version, and of a range: numbers of thousands of digits can't even be compared.
_VERSION_LETTERS = 200

ID_FORM = "1 to 64 of a-z, 0-9, '-' and '.', beginning with a letter"
_ID = re.compile(r"[a-z](?:[a-z0-9]|[-.](?=[a-z0-9])){0,63}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")

# Each field of a manifest, and the type that TOML gives it.
_FIELDS: dict[str, type] = {
    "id": str,
    "version": str,
    "summary": str,
    "kinds": list,
    "entry": str,
    "kernel": str,
    "requires": dict,
    "capabilities": dict,
    "permissions": dict,
    "config": dict,
    "state_version": int,
    "state_reads": list,
    "keep_state": bool,
    "downgrades": bool,
    "run": str,
    "limits": dict,
    "package": str,
}
_NEEDED = ("id", "version", "kinds", "entry", "kernel")
_PERMISSIONS: dict[str, type] = {
    "network": bool,
    "read": list,
    "write": list,
    "environment": list,
    "subprocess": bool,
    "libraries": bool,
}


@dataclass(frozen=True)
class Permissions:
    """What a plugin wants to do besides computing. A process of its own is held to it.

    Attributes:
        network: it opens connections.
        read: files and folders that it reads, besides its own.
        write: files and folders that it writes.
        environment: variables that it reads; `NAME_*` means all that begin so.
        subprocess: it starts programs.
        libraries: it imports what is installed beside dwkernel, and not only its own modules and
            the standard library.

    """

    network: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    subprocess: bool = False
    libraries: bool = False

    def names(self) -> list[str]:
        """Return what is asked for, as `plugins.grant` writes it."""
        single = ("network", "subprocess", "libraries")
        found = [name for name in single if getattr(self, name)]
        for name in ("read", "write", "environment"):
            found += [f"{name}:{one}" for one in getattr(self, name)]
        return found


@dataclass(frozen=True)
class Manifest:
    """What a plugin says of itself.

    Attributes:
        id: a name such as `s3-drive`, or a reversed domain such as `org.example.s3`: 1 to 64 of
            `a-z 0-9 - .`, beginning with a letter.
        version: of the plugin (PEP 440).
        kinds: what it is, by names of `dwkernel.plugins.kinds.KINDS`.
        entry: `module:attribute` of what makes it: called without arguments. Modules are named
            from the folder on that has the manifest.
        kernel: the versions of `API_VERSION` that it was written for.
        requires: other plugins that it needs, and which versions of them.
        capabilities: for each kind what it can do, such as `{"drive": ("s3",)}`.
        permissions: what it wants to do.
        config: a schema, or `{"model": "module:Class"}`.
        state_version: of what `export_state` returns; 0 if it has no state.
        state_reads: versions that its `import_state` takes.
        keep_state: calls wait for the moment of a reload, so that no change of state is lost.
        downgrades: it may follow a newer version of itself.
        run: `"trusted"`: in this process; `"confined"`: in one of its own.
        limits: of such a process, as `dwkernel.plugins.confined.Limits` has them.
        more: what it asks for beyond the usual limits, as `plugins.grant` writes it.
        package: the distribution that brings it, whose version has to be the same.
        summary: one line for people.

    """

    id: str
    version: Version
    kinds: tuple[str, ...]
    entry: str
    kernel: SpecifierSet
    requires: Mapping[str, SpecifierSet] = field(default_factory=dict)
    capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    permissions: Permissions = field(default_factory=Permissions)
    config: Mapping[str, Any] = field(default_factory=dict)
    state_version: int = 0
    state_reads: tuple[int, ...] = ()
    keep_state: bool = False
    downgrades: bool = False
    run: Literal["trusted", "confined"] = "trusted"
    limits: Mapping[str, int | float] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    package: str | None = None
    summary: str = ""

    @property
    def model(self) -> str | None:
        """Where the model of its configuration is, if it has one."""
        return self.config.get("model")

    def asks(self) -> list[str]:
        """Return what somebody has to grant it, as `plugins.grant` writes it."""
        return [*self.permissions.names(), *self.more]


def is_id(text: str) -> bool:
    """Return whether a text can be a plugin's id."""
    return _ID.fullmatch(text) is not None


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        Invalid: `plugin.manifest`, with everything that is wrong and where

    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise errors.new("plugin.manifest", f"{path} can't be read: {error.strerror}") from error
    return parse(content, str(path))


def parse(content: bytes, name: str = FILE_NAME) -> Manifest:
    """Read a manifest's text; `name` is what errors call it.

    Raises:
        Invalid: `plugin.manifest`; `details["errors"]` has a line for each

    """
    if len(content) > BYTES_MAX:
        raise errors.new("plugin.manifest", f"{name} is longer than {BYTES_MAX >> 10} KiB")
    try:
        text = content.decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an int of 5,000 digits is no TOMLDecodeError
        raise errors.new("plugin.manifest", f"{name}: {error}", path=name) from None
    return _checked(table, text, name)


def _checked(table: dict[str, Any], text: str, name: str) -> Manifest:
    checker = _Checker(table)
    try:
        found = checker.manifest()
    except RecursionError:  # tables in tables, which `tomllib` reads without recursion
        raise errors.new("plugin.manifest", f"{name} is nested too deep", path=name) from None
    if found is None:
        lines = _lines(text)
        told = [f"line {_line_of(lines, place)}: {text}" for place, text in checker.wrong]
        everything = "; ".join(told)
        raise errors.new(
            "plugin.manifest", f"{name}: {everything}", path=name, errors="\n".join(told)
        )
    return found


class _Checker:
    """Goes through a table and gathers what is wrong with it."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.wrong: list[tuple[str, str]] = []

    def manifest(self) -> Manifest | None:
        self._names(self.table, _FIELDS, "")
        if str(self.table.get("id", "")).startswith("kernel."):
            self._say("id", "ids that begin with 'kernel.' are the kernel's own")
        for name in _NEEDED:
            if name not in self.table:
                self._say("", f"{name!r} is missing")
        asked = self._limits()
        found = Manifest(
            id=self._id("id", self.table.get("id")),
            version=self._version(),
            kinds=self._kinds(),
            entry=self._matching("entry", _ENTRY, "module:attribute"),
            kernel=self._specifier("kernel", self.table.get("kernel")),
            requires=self._requires(),
            capabilities=self._capabilities(),
            permissions=self._permissions(),
            config=self._config(),
            state_version=self._number("state_version"),
            state_reads=self._reads(),
            keep_state=self._typed("keep_state", default=False),
            downgrades=self._typed("downgrades", default=False),
            run=self._run(),
            limits=asked.limits,
            more=asked.more,
            package=self._typed("package", default=None),
            summary=self._typed("summary", default=""),
        )
        return None if self.wrong else found

    def _say(self, place: str, text: str) -> None:
        self.wrong.append((place, text))

    def _names(self, table: dict[str, Any], known: Mapping[str, type], prefix: str) -> None:
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f", did you mean {near[0]!r}?" if near else f": {', '.join(known)} are"
                self._say(f"{prefix}{name}", f"{name!r} is not known{hint}")

    def _typed(self, name: str, *, default: Any) -> Any:
        value = self.table.get(name, default)
        if name in self.table and type(value) is not _FIELDS[name]:
            self._say(name, f"{name} is a {_FIELDS[name].__name__}, not {value!r}")
            return default
        return value

    def _id(self, place: str, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or not is_id(value):
            self._say(place, f"{value!r} is no id: {ID_FORM}")
        return str(value)

    def _matching(self, name: str, pattern: re.Pattern[str], form: str) -> str:
        value: str = self._typed(name, default="")
        if name in self.table and not pattern.fullmatch(value):
            self._say(name, f"{name} is written as {form!r}, not {value!r}")
        return value

    def _version(self) -> Version:
        text = self._typed("version", default="0")
        try:
            return Version(_short(text))
        except InvalidVersion:
            self._say("version", f"{text!r} is no version: write it like '1.0.2' (PEP 440)")
            return Version("0")

    def _specifier(self, place: str, text: Any) -> SpecifierSet:
        try:
            return _specifiers(_short(text) if isinstance(text, str) else "")
        except (InvalidSpecifier, InvalidVersion):
            self._say(
                place, f"{text!r} is no range of versions: write it like '>=1.2,<2' (PEP 440)"
            )
            return SpecifierSet()

    def _kinds(self) -> tuple[str, ...]:
        given = self._texts("kinds", self.table.get("kinds", []))
        for name in given:
            if name not in KINDS:
                near = difflib.get_close_matches(name, KINDS, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
                self._say("kinds", f"{name!r} is no kind of plugin, {hint}")
        if "kinds" in self.table and not given:
            self._say("kinds", "kinds is empty: name what the plugin is")
        return given

    def _texts(self, place: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            self._say(place, f"{place} is a list of texts, not {value!r}")
            return ()
        if len(set(value)) != len(value):
            self._say(place, f"{place} names something twice")
        return tuple(value)

    def _requires(self) -> dict[str, SpecifierSet]:
        found = {}
        for name, text in self._typed("requires", default={}).items():
            place = f"requires.{name}"
            if not isinstance(text, str):
                self._say(place, f"{text!r} is no range of versions: write it like '>=1.2,<2'")
                continue
            found[self._id(place, name)] = self._specifier(place, text)
        own = str(self.table.get("id"))
        if own in found:
            self._say(f"requires.{own}", "the plugin needs itself")
        return found

    def _capabilities(self) -> dict[str, tuple[str, ...]]:
        found = {}
        kinds = self.table.get("kinds", [])
        for kind, names in self._typed("capabilities", default={}).items():
            if not isinstance(kinds, list) or kind not in kinds:
                self._say(f"capabilities.{kind}", f"{kind!r} is not one of the plugin's kinds")
            found[kind] = self._texts(f"capabilities.{kind}", names)
        return found

    def _permissions(self) -> Permissions:
        table = self._typed("permissions", default={})
        self._names(table, _PERMISSIONS, "permissions.")
        found: dict[str, Any] = {}
        for name, kind in _PERMISSIONS.items():
            place = f"permissions.{name}"
            value = table.get(name, kind())
            if kind is bool and not isinstance(value, bool):
                self._say(place, f"{name} is true or false, not {value!r}")
            found[name] = value if kind is bool else self._texts(place, value)
        for name in ("read", "write"):
            for path in found[name]:
                if not path.startswith("/") or ".." in path.split("/"):
                    self._say(f"permissions.{name}", f"{path!r} is no absolute path without '..'")
        for name in found["environment"]:
            if not _VARIABLE.fullmatch(name):
                self._say("permissions.environment", f"{name!r} is no name of a variable")
        return Permissions(**found)

    def _limits(self) -> limits.Asked:
        found = limits.asked(self._typed("limits", default={}))
        self.wrong += [(f"limits.{name}", text) for name, text in found.wrong]
        return found

    def _config(self) -> dict[str, Any]:
        table: dict[str, Any] = self._typed("config", default={})
        if "model" in table:
            model = table["model"]
            if len(table) > 1 or not isinstance(model, str) or not _ENTRY.fullmatch(model):
                self._say("config.model", 'a model stands alone, as "module:Class"')
        else:
            self.wrong += schema.faults(table)
        return table

    def _number(self, name: str) -> int:
        value: int = self._typed(name, default=0)
        if value < 0:
            self._say(name, f"{name} is 0 or more, not {value}")
        return value

    def _reads(self) -> tuple[int, ...]:
        own = self.table.get("state_version", 0)
        default = list(range(1, own + 1)) if isinstance(own, int) and own < 1000 else [own]  # noqa: PLR2004 - who has so many writes them down
        given = self._typed("state_reads", default=default)
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in given):
            self._say("state_reads", f"state_reads is a list of numbers, not {given!r}")
            return ()
        return tuple(given)

    def _run(self) -> Literal["trusted", "confined"]:
        value = self._typed("run", default="trusted")
        if value not in ("trusted", "confined"):
            self._say("run", f'run is "trusted" or "confined", not {value!r}')
        return "confined" if value == "confined" else "trusted"


@functools.lru_cache(1024)
def _specifiers(text: str) -> SpecifierSet:
    """Parse a range; most plugins write the same few."""
    return SpecifierSet(text, prereleases=True)


_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""")


def _short(text: str) -> str:
    if len(text) > _VERSION_LETTERS:
        raise InvalidVersion(text)
    return text


def _lines(text: str) -> dict[str, int]:
    """Return the line of each key. What stands in inline tables has the line of the table.

    What looks like a table within a text of many lines costs no more than its length, either.
    """
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            table = _bare(bare.lstrip("[").partition("]")[0])
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{table}.{_bare(key[1])}".lstrip("."), number)
    return found


def _bare(key: str) -> str:
    return ".".join(part.strip() for part in key.split(".")).replace('"', "").replace("'", "")


def _line_of(lines: dict[str, int], place: str) -> int:
    """Return the line of a place, or of what it is in; 1 for what is missing."""
    while place and place not in lines:
        place = place.rpartition(".")[0]
    return lines.get(place, 1)
