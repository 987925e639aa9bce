"""`dwkernel job …`: jobs and schedules from the command line.

- `arguments`: what several commands take;
- `shown`: jobs as lines and tables;
- `bars`: what runs, while it runs;
- everything else: commands.
"""

from collections.abc import Callable

import typer

from dwkernel.cli.job import looking, running, scheduling, submitting

__all__ = ["app"]

app = typer.Typer(
    help="Jobs: work that is kept in the store until it is done. Submit, run, look, schedule.",
    epilog="A command that submits only writes a job down: it is run by `dwkernel job run`, or by "
    "the next program that has the store open and runs jobs. What a running program has open is "
    "asked in that program, kernel.jobs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# In the order in which help shows them.
_COMMANDS: tuple[Callable[..., None], ...] = (
    submitting.submit,
    running.run,
    looking.list_,
    looking.show,
    looking.history,
    submitting.cancel,
    scheduling.schedule,
    scheduling.schedules,
    scheduling.unschedule,
    running.pause,
    running.resume,
    looking.kinds,
)
for _command in _COMMANDS:
    app.command(_command.__name__.rstrip("_"))(_command)
