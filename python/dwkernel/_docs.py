"""Generates the documentation that is made from the code: `python -m dwkernel._docs [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dwkernel import errors

_ERRORS_HEAD = """\
# Error codes

Generated from the registry by `python -m dwkernel._docs`; a test compares it. A code is never
re-used and never changes its meaning. The class is from `dwkernel.errors`; all are a `DwError`.

"""


def errors_page() -> str:
    """Return docs/errors.md: each class with its builtin, then each code with what to do."""
    lines = ["| class | is also | what it says |", "|---|---|---|"]
    for cls in sorted(errors.DwError.__subclasses__(), key=lambda cls: cls.__name__):
        also = ", ".join(
            f"`{base.__name__}`" for base in cls.__bases__ if base is not errors.DwError
        )
        lines.append(f"| `{cls.__name__}` | {also or 'none'} | {(cls.__doc__ or '').strip()} |")
    lines += ["", "| code | class | retry helps | what to do |", "|---|---|---|---|"]
    for code in errors.registry().values():
        name = errors.class_of(code.kind).__name__
        retry = "yes" if code.retryable else "no"
        lines.append(f"| `{code.name}` | `{name}` | {retry} | {code.advice} |")
    return _ERRORS_HEAD + "\n".join(lines) + "\n"


def configuration_page() -> str:
    """Return docs/configuration.md: modes, and every field of every section."""
    from dwkernel.config.showing import page  # noqa: PLC0415 - it loads pydantic

    return page()


def kinds_page() -> str:
    """Return docs/plugin-kinds.md: a worked example of each kind of plugin."""
    from dwkernel.cli.plugin.making import page  # noqa: PLC0415 - it loads typer

    return page()


PAGES = {
    "docs/errors.md": errors_page,
    "docs/configuration.md": configuration_page,
    "docs/plugin-kinds.md": kinds_page,
}


def stale_pages(root: Path, *, write: bool) -> list[str]:
    """Return the pages under `root` that differ from the code; with `write`, mend them."""
    stale = []
    for name, make in PAGES.items():
        path, text = root / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return stale


def main() -> int:
    """Write the pages under the current directory, or only check them."""
    parser = argparse.ArgumentParser(prog="python -m dwkernel._docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is stale")
    check: bool = parser.parse_args().check
    stale = stale_pages(Path(), write=not check)
    for name in stale:
        sys.stdout.write(f"{name} {'is stale' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
