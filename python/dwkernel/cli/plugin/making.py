"""`dwkernel plugin new`: an installable package to begin with, from templates that are read.

docs/plugin-kinds.md shows the same, kind by kind: they are the worked examples.
"""

from __future__ import annotations

import keyword
import os
import re
import secrets
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from dwkernel import errors
from dwkernel.plugins import kinds
from dwkernel.plugins.manifest import API_VERSION

__all__ = ["make", "page", "use_of"]

_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){0,63}")
# A codec's name is stored with what it encoded, and is shorter than a plugin's.
_SHORT_LETTERS = 32
_PROJECT = {
    "pyproject.toml": "pyproject.toml.txt",
    "conformance.toml": "conformance.toml.txt",
    "README.md": "README.md.txt",
    "src/{{package}}/__init__.py": "init.py.txt",
    "src/{{package}}/plugin.toml": "plugin.toml.txt",
    "tests/test_conformance.py": "test.py.txt",
}


def make(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a plugin's project, whole or not at all.

    Args:
        kind: which kind of plugin.
        name: its id and the distribution's name: 1 to 64 of `a-z 0-9 -`, beginning with a letter.
        folder: the project's, which is made; an empty one that is there is taken.

    Returns:
        The files.

    Raises:
        Invalid: `plugin.kind`; `plugin.option`: the name
        Exists: `plugin.exists`: something is there already

    """
    kinds.protocol(kind)
    _check(name)
    _is_free(folder, name)
    files = _files(kind, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for place, content in files.items():
            path = beside / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        beside.chmod(0o777 & ~_umask(beside))
        try:
            beside.rename(folder)  # over an empty folder, but over nothing else
        except OSError as error:
            raise _there(folder, name) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / place for place in sorted(files)]


def use_of(kind: str, name: str) -> str:
    """Return a program that uses a plugin that was made, from the folder that its project is in."""
    return _filled(_read(f"uses/{kind}.py.txt"), {"name": name})


_PAGE_HEAD = """\
# Plugins: a worked example of each kind

Generated from the templates of `dwkernel plugin new` by `python -m dwkernel._docs`; tests compare
it, run the conformance suite on each example, and each program. [plugins.md](plugins.md) says what
a manifest has, how a plugin lives, and what to heed.

    $ dwkernel plugin new KIND NAME     # makes what is shown here: a package that installs
    $ dwkernel plugin test NAME         # what every plugin of its kind must do

The programs find the plugin as a folder. An installed package needs no `folders`.
"""


def page() -> str:
    """Return docs/plugin-kinds.md."""
    parts = [_PAGE_HEAD]
    for kind, about in kinds.KINDS.items():
        name = f"my-{kind.replace('_', '-')}"
        files = _files(kind, name)
        shown = [f"src/{name.replace('-', '_')}/plugin.{end}" for end in ("toml", "py")]
        if _read(f"samples/{kind}.toml.txt", needed=False):
            shown.append("conformance.toml")
        parts.append(f"## {kind}\n\n`dwkernel plugin new {kind} {name}`: {about.says}.\n")
        parts += [_block(place, files[place]) for place in shown]
        parts.append(_block("", use_of(kind, name)))
    return "\n".join(parts)


def _block(place: str, text: str) -> str:
    language = "toml" if place.endswith(".toml") else "python"
    head = f"`{place}`:" if place else "A program that uses it:"
    return f"{head}\n\n```{language}\n{text.strip()}\n```\n"


def _umask(beside: Path) -> int:
    """Return the umask, as a folder that was made now shows it: setting it is everybody's."""
    probe = beside / ".mode"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return 0o777 & ~mode


def _check(name: str) -> None:
    text = ""
    if not _NAME.fullmatch(name):
        text = f"{name!r} is no name: 1 to 64 of a-z, 0-9 and '-', beginning with a letter"
        near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if _NAME.fullmatch(near):
            text += f"; {near} is one"
    elif keyword.iskeyword(package := name.replace("-", "_")) or package in sys.stdlib_module_names:
        text = f"{name} is a word or a module of Python: {name}-plugin is none"
    elif package == "dwkernel" or name.startswith("kernel"):
        text = f"{name} is the kernel's own"
    if text:
        raise errors.new("plugin.option", text, name=name)


def _is_free(folder: Path, name: str) -> None:
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()):
        raise _there(folder, name)


def _there(folder: Path, name: str) -> errors.DwError:
    text = f"{name} is to be made in {folder}, which is there already and no empty folder"
    return errors.new("plugin.exists", text, id=name, places=folder)


def _files(kind: str, name: str) -> dict[str, str]:
    major = int(API_VERSION.partition(".")[0])
    short = name[:_SHORT_LETTERS].rstrip("-")
    words = {
        "manifest": _read(f"manifests/{kind}.toml.txt", needed=False),
        "use": _read(f"uses/{kind}.py.txt").rstrip(),
        "samples": _read(f"samples/{kind}.toml.txt", needed=False),
        "name": name,
        "short": short,
        "package": name.replace("-", "_"),
        "class": "".join(part.capitalize() for part in name.split("-")),
        "kind": kind,
        # What it can do: for some its own name, else what its template says.
        "capability": short if kinds.is_named(kind) else name,
        "api": API_VERSION,
        "next_api": str(major + 1),
        "summary": f"Begun as a plugin of the kind {kind}",
    }
    given = {place: _read(f"project/{template}") for place, template in _PROJECT.items()}
    given["src/{{package}}/plugin.py"] = _read(f"kinds/{kind}.py.txt")
    if kind == "key_source":
        # An example's key, drawn now: a key that is in a template is nobody's secret.
        given["src/{{package}}/keys/example.hex"] = f"{secrets.token_hex(32)}\n"
    return {_filled(place, words): _filled(text, words) for place, text in given.items()}


def _read(place: str, *, needed: bool = True) -> str:
    path = resources.files(__package__).joinpath("templates", *place.split("/"))
    return path.read_text(encoding="utf-8") if needed or path.is_file() else ""


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text
