"""Webhooks: signed, verified from outside, and sent again until a receiver has them."""

from __future__ import annotations

import base64
import json
import logging
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import pytest

import dwkernel as dw
from dwkernel import errors, sinks
from expect import until

pytest.importorskip("urllib3", reason="webhooks need urllib3")

from dwkernel.sinks.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dwkernel.bus import Message, Stream

PATIENCE_S = 30.0
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


class Handler(BaseHTTPRequestHandler):
    """Does what its server's script says of each request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        server = self.server
        with server.lock:
            server.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
        action = server.script(len(server.requests))
        if isinstance(action, int):
            action = (action, {})
        if isinstance(action, tuple):
            self.answer(*action)
        else:
            getattr(self, action)()
            self.close_connection = True
        with server.lock:
            server.answered += 1

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": "2", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def hang(self) -> None:
        self.server.gate.wait(PATIENCE_S)

    def reset(self) -> None:
        linger = b"\1\0\0\0\0\0\0\0"  # on, no time: a reset instead of an orderly end
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def garbage(self) -> None:
        self.wfile.write(random.Random(7).randbytes(4000) + b"\r\n\r\n")

    def drip(self, begin: bytes = b"HTTP/1.1 200 OK\r\nx: ") -> None:
        self.wfile.write(begin)
        end = time.monotonic() + PATIENCE_S / 2
        while time.monotonic() < end and not self.server.gate.wait(0.1):
            try:
                self.wfile.write(b"y")
            except OSError:
                return

    def drip_body(self) -> None:
        self.drip(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")

    def drip_rest(self) -> None:
        self.drip(b"HTTP/1.0 200 OK\r\n\r\n")

    def huge(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        sent = 0
        block = bytes(1 << 16)
        try:
            while sent < 1 << 30:
                sent += self.connection.send(block)
        except OSError:
            pass
        self.server.sent = sent

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A receiver on loopback."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Callable[[int], Any] = lambda _: 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answered = 0
        self.sent = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.webhooks: list[Webhook] = []
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.place = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        for webhook in self.webhooks:
            webhook.close()
        self.shutdown()
        self.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[dw.Kernel]:
    drives = [f"memory://{request.node.name}-{number}" for number in range(3)]
    with dw.open(drives=drives, geometry="2+1", create=True) as kernel:
        yield kernel


@pytest.fixture
def stream(kernel: dw.Kernel) -> Stream:
    stream = kernel.bus.stream("s", subjects=["s.>"], create=True)
    headers = {"container": "docs", "X-Other": "é", "content-type": "application/json"}
    with kernel.bus.group() as group:
        group.publish("s.a", b'{"n": 1}', key='docs/ö "1"', headers=headers)
        group.publish("s.b", b"\xff\x00", schema="urn:x:y")
        group.publish("s.c", b'{"n":\n3}', schema="dwkernel.event.v1")
    return stream


@pytest.fixture
def messages(stream: Stream) -> list[Message]:
    return list(stream.replay())


def hook(server: Server, **options: Any) -> Webhook:
    options = {"secret": SECRET, "allow_private": True, "timeout": "2s", **options}
    scheme = "https" if "ca_file" in options else "http"
    server.webhooks.append(Webhook(f"{scheme}://{server.place}/hooks/in?x=1", **options))
    return server.webhooks[-1]


# --- Requests -------------------------------------------------------------------------------------


def test_messages_are_posted_as_cloudevents_that_verify(server: Server, stream: Stream) -> None:
    other = pytest.importorskip("standardwebhooks", reason="standardwebhooks is not installed")
    webhook = hook(server, secret=[OTHER, SECRET], headers={"Authorization": "Bearer t"})
    with sinks.attach(stream, webhook, name="c", in_flight=1) as pump:
        pump.flush(PATIENCE_S)
    assert len(server.requests) == 3
    sent = list(stream.replay())
    for (headers, body), message in zip(server.requests, sent, strict=True):
        assert sinks.verify(SECRET, headers, body)
        assert sinks.verify(OTHER, headers, body)
        assert (body, headers["webhook-id"]) == (message.data, message.id)
        assert headers["ce-id"] == message.id
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-source"] == "/dwkernel/streams/s"
        assert headers["ce-type"] == message.subject
        assert headers["ce-sequence"] == f"{message.sequence:020d}"
        assert datetime.fromisoformat(headers["ce-time"]) == message.published_at
        assert headers["authorization"] == "Bearer t"
    one, two, three = (headers for headers, _ in server.requests)
    assert other.Webhook(SECRET).verify(server.requests[0][1], one) == {"n": 1}
    assert one["ce-subject"] == "docs/%C3%B6%20%221%22"
    assert unquote(one["ce-partitionkey"]) == 'docs/ö "1"'
    assert (one["ce-container"], one["content-type"]) == ("docs", "application/json")
    assert "ce-x-other" not in one
    assert (two["content-type"], two["ce-dataschema"]) == ("application/octet-stream", "urn:x:y")
    assert (three["content-type"], three["ce-schemaname"]) == (
        "application/json",
        "dwkernel.event.v1",
    )


def test_raw_messages_have_all_the_rest_in_headers(server: Server, messages: list[Message]) -> None:
    assert hook(server, format="raw", secret=None).deliver(messages[:1])[0].kind == "taken"
    ((headers, body),) = server.requests
    assert body == messages[0].data
    assert headers["dwkernel-subject"] == "s.a"
    assert headers["dwkernel-sequence"] == "1"
    assert headers["dwkernel-header-x-other"] == "%C3%A9"
    assert unquote(headers["dwkernel-key"]) == 'docs/ö "1"'
    assert "webhook-signature" not in headers
    assert headers["webhook-id"] == messages[0].id


def test_a_batch_is_one_request(server: Server, stream: Stream) -> None:
    with sinks.attach(stream, hook(server, batch=10, source="//h/x"), name="c") as pump:
        pump.flush(PATIENCE_S)
    ((headers, body),) = server.requests
    assert sinks.verify(SECRET, headers, body)
    assert headers["content-type"].startswith("application/cloudevents-batch+json")
    one, two, three = json.loads(body)
    assert (one["data"], three["data"]) == ({"n": 1}, {"n": 3})
    assert base64.b64decode(two["data_base64"]) == b"\xff\x00"
    assert "data" not in two
    assert [event["sequence"][-1] for event in (one, two, three)] == ["1", "2", "3"]
    assert (one["source"], one["subject"], one["container"]) == ("//h/x", 'docs/ö "1"', "docs")


def test_of_a_batch_only_what_is_refused_alone_is_refused(
    server: Server, messages: list[Message]
) -> None:
    def script(_: int) -> int:
        return 422 if b'"type":"s.b"' in server.requests[-1][1] else 200

    server.script = script
    webhook = hook(server, batch=3)
    assert [one.kind for one in webhook.deliver(messages)] == ["taken", "refused", "taken"]
    server.script = lambda _: 200
    server.requests.clear()
    # More than it wishes is sent in several requests.
    assert [one.kind for one in hook(server).deliver(messages)] == ["taken"] * 3
    assert [headers["ce-id"] for headers, _ in server.requests] == [one.id for one in messages]
    server.script = lambda _: 413 if len(json.loads(server.requests[-1][1])) > 1 else 503
    assert [one.kind for one in webhook.deliver(messages)] == ["failed"] * 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(status, "taken") for status in (200, 201, 202, 204, 299)],
        *[(status, "failed") for status in (301, 302, 307, 308, 408, 425, 429, 500, 502, 503)],
        *[(status, "refused") for status in (400, 401, 403, 404, 413, 422, 451)],
        (410, "gone"),
        (999, "failed"),
    ],
)
def test_a_status_means(server: Server, messages: list[Message], status: int, kind: str) -> None:
    elsewhere = {"location": f"http://{server.place}/elsewhere"}
    server.script = lambda _: (status, elsewhere if 300 <= status < 400 else {})
    (outcome,) = hook(server).deliver(messages[:1])
    assert outcome.kind == kind
    assert len(server.requests) == 1
    assert kind == "taken" or str(status) in outcome.reason


@pytest.mark.parametrize("fault", ["hang", "reset", "garbage", "drip"])
def test_a_fault_means_again_within_the_deadline(
    server: Server, messages: list[Message], fault: str
) -> None:
    server.script = lambda count: fault if count == 1 else 200
    webhook = hook(server, timeout="0.5s")
    begin = time.monotonic()
    (outcome,) = webhook.deliver(messages[:1])
    assert time.monotonic() - begin < 3
    assert outcome.kind == "failed"
    if fault in ("hang", "drip"):
        assert "no answer in time" in outcome.reason
    assert webhook.deliver(messages[:1])[0].kind == "taken"
    webhook.close()


@pytest.mark.parametrize("body", ["drip_body", "drip_rest", "huge"])
def test_a_body_that_does_not_end_is_left(
    server: Server, messages: list[Message], body: str
) -> None:
    server.script = lambda count: body if count == 1 else 200
    webhook = hook(server, timeout="0.5s")
    begin = time.monotonic()
    assert webhook.deliver(messages[:1])[0].kind == "taken"
    assert time.monotonic() - begin < 3
    if body == "huge":
        until(lambda: server.sent > 0)
        assert server.sent < 64 << 20
    assert webhook.deliver(messages[:1])[0].kind == "taken"


def test_connections_are_kept_and_dead_ones_replaced(
    server: Server, messages: list[Message]
) -> None:
    places: set[Any] = set()
    plain = Handler.answer

    def answer(self: Handler, status: int, headers: dict[str, str]) -> None:
        places.add(self.client_address)
        plain(self, status, headers)
        # The connection ends after its third answer, and says nothing about it.
        self.close_connection = len(server.requests) % 3 == 0

    webhook = hook(server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "answer", answer)
        for _ in range(9):
            assert webhook.deliver(messages[:1])[0].kind == "taken"
    assert (len(server.requests), len(places)) == (9, 3)
    assert len({headers["webhook-id"] for headers, _ in server.requests}) == 1


def test_nobody_listening_means_again(messages: list[Message]) -> None:
    with Server() as gone:
        webhook = hook(gone)
    (outcome,) = webhook.deliver(messages[:1])
    assert outcome.kind == "failed"
    assert "refused" in outcome.reason


def test_retry_after_is_honoured(server: Server, stream: Stream) -> None:
    times: list[float] = []

    def script(count: int) -> Any:
        times.append(time.monotonic())
        return (503, {"retry-after": "1"}) if count == 1 else 200

    server.script = script
    with sinks.attach(stream, hook(server), name="c", in_flight=1, backoff=[0.01]) as pump:
        until(lambda: pump.status().wait_s > 0)
        assert pump.status().state == "waiting"
        pump.flush(PATIENCE_S)
    assert times[1] - times[0] >= 0.95
    assert len(times) == 4


def test_retry_after_may_be_a_date_and_is_bounded(server: Server, messages: list[Message]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    texts = {soon: 60.0, "0": 0.0, "x": None, "-1": None, "9" * 40: 999_999_999.0}
    webhook = hook(server)
    for text, wanted in texts.items():
        server.script = lambda _, text=text: (429, {"retry-after": text})  # type: ignore[misc]
        (outcome,) = webhook.deliver(messages[:1])
        assert outcome.after_s == pytest.approx(wanted, abs=5)
    from dwkernel.sinks.breaker import Backoff, Breaker

    breaker = Breaker(5, Backoff([1]))
    breaker.hold(0.0, 999_999_999.0)
    assert breaker.wait_s(0.0) == 3600


# --- Secrets, addresses, certificates -------------------------------------------------------------


def test_no_secret_is_shown_anywhere(
    server: Server, stream: Stream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    actions: list[Any] = ["garbage", "reset", 302, 500, 400]
    server.script = lambda count: actions[count - 1] if count <= len(actions) else 410
    url = f"http://{server.place}/services/T0KEN/in?key=K3Y"
    webhook = Webhook(
        url, secret=SECRET, headers={"Authorization": "Bearer B3ARER"}, allow_private=True
    )
    with sinks.attach(stream, webhook, name="c", in_flight=1, backoff=[0.01], breaker=99) as pump:
        seen = [repr(webhook), repr(pump)]
        while pump.status().state != "gone":
            seen.append(str(pump.status().to_dict()))
            time.sleep(0.001)
        seen += [str(pump.status()), str(pump.status().to_dict())]
        with pytest.raises(errors.State) as caught:
            pump.flush(1)
        seen += [str(caught.value), str(caught.value.details)]
    seen += [str(one) for one in stream.dead_letters()] + [caplog.text]
    assert len(server.requests) >= 6
    for secret in (SECRET.removeprefix("whsec_"), "T0KEN", "K3Y", "B3ARER"):
        assert secret not in "".join(seen)
    assert server.place in repr(webhook)


def test_what_counts_is_the_address_that_a_name_means(
    server: Server, messages: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.server_address[1]
    real = socket.getaddrinfo
    means = {"inside.example": "127.0.0.1", "0x7f.1": "127.0.0.1"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real(means.get(host, host), *a, **k)
    )
    for host in means:
        webhook = Webhook(f"http://{host}:{port}/", secret=None)
        (outcome,) = webhook.deliver(messages[:1])
        assert (outcome.kind, server.requests) == ("failed", [])
        assert "private address" in outcome.reason
    meant = Webhook(f"http://inside.example:{port}/", secret=None, allow_private=True)
    assert meant.deliver(messages[:1])[0].kind == "taken"
    meant.close()


def test_certificates_are_verified(tmp_path: Path, messages: list[Message]) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            *["-nodes", "-days", "2", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
            *["-keyout", str(key), "-out", str(certificate)],
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Server(context) as server:
        webhook = hook(server, ca_file=certificate, timeout="0.7s")
        assert webhook.deliver(messages[:1])[0].kind == "taken"
        assert webhook.deliver(messages[:1])[0].kind == "taken"
        server.script = lambda _: "drip"
        begin = time.monotonic()
        assert webhook.deliver(messages[:1])[0].kind == "failed"
        assert time.monotonic() - begin < 3
        stranger = Webhook(f"https://{server.place}/", secret=None, allow_private=True)
        (outcome,) = stranger.deliver(messages[:1])
        assert outcome.kind == "failed"
        assert "certificate not accepted" in outcome.reason
        assert len(server.requests) == 3


# --- Histories ------------------------------------------------------------------------------------

_CHILD = """
import dwkernel as dw, os, signal, sys, random, threading
path, url, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kernel = dw.open(path)
stream = kernel.bus.stream("s")
webhook = dw.sinks.Webhook(url, secret=None, allow_private=True, timeout="0.4s")
dice = random.Random(seed)
plain = webhook.deliver
lock = threading.Lock()
left = [dice.randrange(1, count)]
def deliver(messages):
    outcomes = plain(messages)
    with lock:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)   # sent, and not acknowledged
    return outcomes
webhook.deliver = deliver
options = {"ordered": True, "backoff": ["20ms", "100ms"], "breaker": 50}
pump = dw.sinks.attach(stream, webhook, name="c", **options)
pump.flush("60s")
print("flushed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_every_message_arrives_in_order_and_none_after_a_durable_ack(
    server: Server, path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    faults: list[Any] = [500, 503, 429, "reset", "garbage", "hang"]
    lock = threading.Lock()
    taken: list[tuple[str, int]] = []

    def script(count: int) -> Any:
        with lock:
            fault = dice.choice(faults) if dice.random() < 0.2 else 200
            if fault == 200:
                headers = server.requests[count - 1][0]
                taken.append((headers["ce-subject"], int(headers["ce-sequence"])))
            return fault

    server.script = script
    server.gate.set()  # what hangs answers nothing, at once
    with dw.open(path, drives=3, create=True) as kernel:
        stream = kernel.bus.stream("s", subjects=["s"], create=True)
        with kernel.bus.group() as group:
            for number in range(120):
                group.publish("s", str(number).encode(), key=f"k{number % 7}")
    url = f"http://{server.place}/"
    runs = 0
    while True:
        runs += 1
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_CHILD), str(path), url, str(seed + runs), "60"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        told = child.stdout.readline()
        child.kill() if told else None
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        if told:
            break
        assert runs < 60
    assert runs > 1, "nothing was killed"
    with lock:
        count = len(taken)
        first: dict[str, list[int]] = {}
        for key, sequence in taken:
            if sequence not in first.setdefault(key, []):
                first[key].append(sequence)
    assert sorted(one for each in first.values() for one in each) == list(range(1, 121))
    for key, sequences in first.items():
        assert sequences == sorted(sequences), key
    # All was flushed before the last kill: nothing of it comes again.
    with dw.open(path) as kernel, Server() as after:
        stream = kernel.bus.stream("s")
        with sinks.attach(stream, hook(after), name="c") as pump:
            stream.publish("s", b"new")
            pump.flush(PATIENCE_S)
        assert [body for _, body in after.requests] == [b"new"]
    assert len(taken) == count
