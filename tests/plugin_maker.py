"""Plugins that tests write: a folder with a manifest and some code."""

from __future__ import annotations

import contextlib
import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwkernel.plugins import Plugins, PluginsSection
from dwkernel.plugins.watchdog import PluginRaisedError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[1] / "examples" / "dwkernel-example-plugin"

# A policy that does nothing; what comes after it is the test's.
POLICY = """
from dwkernel.plugins import Verdict

class Plugin:
    def before(self, requests):
        return [Verdict.allow() for _ in requests]

    def after(self, finished):
        pass
"""


def toml(value: Any) -> str:
    """Write a value as TOML does: close enough to JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}" = {toml(one)}' for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def manifest(plugin_id: str = "p", version: str = "1.0", **fields: Any) -> str:
    """Write a manifest; fields that are None are left out."""
    given = {
        "id": plugin_id,
        "version": version,
        "kinds": ["policy"],
        "entry": "main:Plugin",
        "kernel": ">=1.0,<2",
        **fields,
    }
    return "".join(f"{name} = {toml(one)}\n" for name, one in given.items() if one is not None)


def write(
    home: Path,
    body: str = "",
    *,
    plugin_id: str = "p",
    version: str = "1.0",
    files: dict[str, str] | None = None,
    **fields: Any,
) -> Path:
    """Write a plugin into a folder; `body` are methods of its class, after those of a policy.

    A folder that is there is replaced.
    """
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / "plugin.toml").write_text(manifest(plugin_id, version, **fields))
    code = POLICY + textwrap.indent(textwrap.dedent(body), "    ")
    for name, text in {"main.py": code, **(files or {})}.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(textwrap.dedent(text))
    return home


@contextlib.contextmanager
def plugins(**section: Any) -> Iterator[Plugins]:
    """Open plugins that look for installed ones nowhere; limits are for a busy machine."""
    steps = ("load", "start", "pause", "state", "health", "drain", "stop", "freeze")
    limits = dict.fromkeys(steps, 30.0)
    given = {"installed": False, **section}
    given["limits"] = {**limits, **given.get("limits", {})}
    with Plugins(PluginsSection.model_validate(given)) as opened:
        yield opened


def raised(error: BaseException) -> PluginRaisedError:
    """Return what a plugin raised, at the end of an error's causes."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PluginRaisedError):
        found = found.__cause__
    assert found is not None
    return found
