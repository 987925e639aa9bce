"""What every bus with streams must do, whoever keeps it: a store, NATS, Redis, your own.

Each case is a function that takes a factory of buses. What the bus promises is tested; what it does
not promise must be refused with `broker.unsupported`. With pytest:

    from dwkernel.conformance import streams


    @pytest.mark.parametrize("case", streams.CASES, ids=streams.name_of)
    def test_my_bus(case: streams.Case) -> None:
        case(lambda: MyBus("localhost"))  # a context manager; entered again it finds its streams

>>> import dwkernel as dw
>>> from dwkernel.conformance import streams
>>> drives = [f"memory://doc-conformance-{n}" for n in range(3)]
>>> factory = streams.of_kernel(drives)
>>> streams.name_of(streams.CASES[0])
'messages_are_kept_as_they_were_sent'
>>> streams.CASES[0](factory)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dwkernel.conformance.streams import consuming, histories, publishing, topics
from dwkernel.conformance.streams.checks import Case, Factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.bus import ports

__all__ = ["CASES", "Case", "Factory", "name_of", "of_kernel"]

CASES: list[Case] = [
    *publishing.CASES,
    *consuming.CASES,
    *topics.CASES,
    *histories.CASES,
]


def name_of(case: Case) -> str:
    """Return what a case claims, as a name."""
    return getattr(case, "__name__", repr(case))


def of_kernel(drives: list[str]) -> Factory:
    """Return a factory of the buses of a store on these drives, made where it is missing."""
    import dwkernel as dw  # noqa: PLC0415 - only for stores

    @contextlib.contextmanager
    def factory() -> Iterator[ports.Bus]:
        with dw.open(drives=drives, geometry="2+1", create="if_missing") as kernel:
            yield kernel.bus

    return factory
