"""The command line: `dwkernel`, short `dw`.

Exit status: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C. Every command but `cat` takes
`--json`. No error is answered with a traceback, unless `DWKERNEL_TRACEBACK=1` asks for it.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; what it needs is loaded only now."""
    try:
        from dwkernel.cli.app import run  # noqa: PLC0415 - typer and rich cost more than the package

        status = run()
    except KeyboardInterrupt:
        # Before or after a command, which would have said more.
        status = 130
    sys.exit(status)
