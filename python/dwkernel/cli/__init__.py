"""The command line: `dwkernel`, short `dw`.

Exit status: 0 done, 1 failed, 2 wrong use. Every command takes `--json`.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line; what it needs is loaded only now."""
    from dwkernel.cli.app import run  # noqa: PLC0415 - typer and rich cost more than the package

    run()
