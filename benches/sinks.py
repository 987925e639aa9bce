"""Sinks: how many messages of a stream they carry, and what processor time each message takes.

Limited by the interpreter, and for webhooks by how fast the receiver answers: a bare server of this
machine, in a process of its own, that reads a request and answers 204. Processor time is that of
the sending process alone: pump, sink and the consumer behind it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dwkernel as dw
from benches.duel import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwkernel.bus import Stream
    from dwkernel.sinks import Sink

DATA = b'{"size": 1234, "etag": "0123456789abcdef"}'
BATCH = 1000
COUNT_FILES = 100_000
COUNT_REQUESTS = 4_000
SECRET = bytes(range(32))

# It reads one request after the other on each connection, and looks at nothing but lengths.
RECEIVER = """
import socket, threading
def serve(line):
    file = line.makefile("rb")
    while True:
        length = 0
        for head in iter(file.readline, b"\\r\\n"):
            if not head:
                return
            if head.lower().startswith(b"content-length:"):
                length = int(head[15:])
        file.read(length)
        line.sendall(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    line = server.accept()[0]
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(line,), daemon=True).start()
"""


def rows() -> Iterator[Row]:
    """Measure on a store of three drives that survives the loss of one."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("DWK_BENCH_DIR")) as place:
        path = Path(place)
        with dw.open(path / "store", drives=3, geometry="2+1", create=True) as kernel:
            stream = kernel.bus.stream("bench", subjects=["object.>"], create=True)
            message = ("object.created", DATA, {"container": "docs"})
            for _ in range(0, COUNT_FILES, BATCH):
                stream.publish_many([message] * BATCH)
            nothing = dw.sinks.Call(lambda _: None)
            nothing.batch = BATCH
            yield carried("a function that does nothing", stream, nothing, COUNT_FILES)
            for sync in (True, False):
                sink = dw.sinks.Files(path / f"files-{sync}", sync=sync)
                yield carried(f"files, sync={sync}, batches of 1,000", stream, sink, COUNT_FILES)
            yield from webhooks(stream)


def webhooks(stream: Stream) -> Iterator[Row]:
    command = [sys.executable, "-c", RECEIVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        url = f"http://127.0.0.1:{int(receiver.stdout.readline())}/"
        last = stream.status().last_sequence
        for batch, count in ((1, COUNT_REQUESTS), (100, COUNT_FILES // 2)):
            sink = dw.sinks.Webhook(url, secret=SECRET, allow_private=True, batch=batch)
            what = f"signed webhook on loopback, batches of {batch}"
            yield carried(what, stream, sink, count, start=last - count + 1)
        receiver.kill()


def carried(what: str, stream: Stream, sink: Sink, count: int, start: int = 1) -> Row:
    """Carry messages once: each run has a consumer of its own."""
    name = f"bench-{time.monotonic_ns()}"
    used, begin = time.process_time(), time.perf_counter()
    with dw.sinks.attach(stream, sink, name=name, start=start) as pump:
        pump.flush("10min")
        seconds = time.perf_counter() - begin
        used = time.process_time() - used
        assert pump.status().delivered == count
    text = f"sinks: {what}; {used / count * 1e6:.0f} us of processor each"
    return Row(text, count, {"dwkernel": seconds}, {"dwkernel": seconds}, unit="/s")
