"""One suite for a store's own bus and for those that brokers keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dwkernel import brokers
from dwkernel.conformance import servers, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: list[servers.Kind] = ["nats", "redis"]


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, servers.LocalServer]]:
    """Keep one server of each kind, started when it is first asked for."""
    started: dict[str, servers.LocalServer] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(params=["kernel", *KINDS])
def factory(
    request: pytest.FixtureRequest, running: dict[str, servers.LocalServer]
) -> streams.Factory:
    kind = request.param
    if kind == "kernel":
        return streams.of_kernel([f"memory://{request.node.name}-{n}" for n in range(3)])
    if servers.find(kind) is None:
        pytest.skip(servers.missing(kind))
    if kind not in running:
        running[kind] = servers.LocalServer(kind)
    url = running[kind].url
    return lambda: brokers.connect(url)


@pytest.mark.parametrize("case", streams.CASES, ids=streams.name_of)
def test_it_keeps_what_it_promises(case: streams.Case, factory: streams.Factory) -> None:
    case(factory)
