"""`dwkernel plugin …`: for those who write plugins, and those who run them.

- `places`: which plugins are meant: folders, installed packages, a file of settings;
- `making`: a new project from templates; `settings`: enabling and disabling in a file;
- everything else: commands.
"""

from collections.abc import Callable

import typer

from dwkernel.cli.plugin import authors, operators

__all__ = ["app"]

app = typer.Typer(
    help="Plugins: make and test your own, look at those that are there.",
    epilog="Nothing here reaches into a program that runs: what it has is kernel.plugins of that "
    "program. `enable` and `disable` write the file that it follows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# In the order in which help shows them.
_COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("new", authors.new),
    ("test", authors.conform),
    ("list", operators.list_),
    ("info", operators.info),
    ("check", operators.check),
    ("install", operators.install),
    ("enable", operators.enable),
    ("disable", operators.disable),
    ("reload", operators.reload),
)
for _name, _command in _COMMANDS:
    app.command(_name)(_command)
