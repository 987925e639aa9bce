"""What keeps webhooks honest: signatures, secrets that stay secret, addresses that are meant."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from dwkernel import errors, sinks

pytest.importorskip("urllib3", reason="webhooks need urllib3")

from dwkernel.sinks.connection import is_public
from dwkernel.sinks.signing import keys_of, sign
from dwkernel.sinks.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(errors.Invalid) as caught:
        call()
    assert caught.value.code == "sink.option"
    return str(caught.value)


def test_the_specification_s_example_is_signed_as_it_says() -> None:
    key = keys_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def signed(secret: Any = SECRET, body: bytes = b"{}", ago_s: int = 0) -> dict[str, str]:
    now = int(time.time()) - ago_s
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(now),
        "Webhook-Signature": sign(keys_of(secret), "msg_1", now, body),
    }


def test_only_what_was_signed_by_a_secret_lately_is_verified() -> None:
    headers = signed()
    assert sinks.verify(SECRET, headers, b"{}")
    assert sinks.verify([OTHER, SECRET], headers, b"{}")
    assert sinks.verify(SECRET.removeprefix("whsec_"), headers, b"{}")
    assert sinks.verify(bytes(range(32)), headers, b"{}")
    assert not sinks.verify(OTHER, headers, b"{}")
    assert not sinks.verify(SECRET, headers, b"{ }")
    assert not sinks.verify(SECRET, {**headers, "Webhook-Id": "msg_2"}, b"{}")
    for name in headers:
        assert not sinks.verify(SECRET, {k: v for k, v in headers.items() if k != name}, b"{}")
    for text in (
        "",
        "v1",
        "v1,",
        "v1,*",
        "v2," + headers["Webhook-Signature"][3:],
        "v1,é",
        " " * 9,
    ):
        assert not sinks.verify(SECRET, {**headers, "Webhook-Signature": text}, b"{}")
    several = f"v1a,x {'v1,' + base64.b64encode(bytes(32)).decode()} {headers['Webhook-Signature']}"
    assert sinks.verify(SECRET, {**headers, "Webhook-Signature": several}, b"{}")
    for ago_s in (400, -400):
        assert not sinks.verify(SECRET, signed(ago_s=ago_s), b"{}")
        assert sinks.verify(SECRET, signed(ago_s=ago_s), b"{}", tolerance="10min")
    for text in ("x", "-1", "1.5", "9" * 400, "\uff11"):
        assert not sinks.verify(SECRET, {**headers, "Webhook-Timestamp": text}, b"{}")


def test_another_implementation_agrees_in_both_directions() -> None:
    other = pytest.importorskip("standardwebhooks", reason="standardwebhooks is not installed")
    theirs = other.Webhook(SECRET)
    body = '{"é": 1}'
    headers = signed(body=body.encode())
    assert theirs.verify(body, headers) == {"é": 1}
    now = datetime.now(UTC)
    made = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": theirs.sign("msg_2", now, body),
    }
    assert sinks.verify(SECRET, made, body.encode())


def test_a_wrong_secret_is_refused_and_not_shown() -> None:
    wrong: list[Any] = ["whsec_not base64 at all!", "c2hvcnQ=", b"short", "", [], 7]
    for secret in wrong:
        text = refused(lambda secret=secret: sinks.verify(secret, {}, b""))  # type: ignore[misc]
        assert "not base64 at all" not in text
        assert "c2hvcnQ" not in text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "https://",
        "/path",
        "https://h:port/",
        "https://user:T0KEN@example.com/",
        "https://example.com/a b",
        "https://example.com/\r\nx: T0KEN",
        "https://" + "T0KEN" * 60 + ".com/",
        7,
        b"https://example.com/",
    ],
)
def test_a_wrong_url_is_refused_and_not_shown(url: Any) -> None:
    assert "T0KEN" not in refused(lambda: Webhook(url, secret=None))


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    url = "https://example.com/"
    for options in (
        {"format": "xml"},
        {"batch": 0},
        {"batch": 2, "format": "raw"},
        {"timeout": 0},
        {"timeout": "1h"},
        {"ca_file": tmp_path / "none.pem"},
        {"headers": {"a b": "1"}},
        {"headers": {"a": "1\r\nb: T0KEN"}},
        {"headers": {"webhook-id": "1"}},
        {"headers": {"Content-Length": "1"}},
        {"headers": {"a": 1}},
    ):
        given: dict[str, Any] = options
        text = refused(lambda given=given: Webhook(url, secret=None, **given))  # type: ignore[misc]
        assert "T0KEN" not in text


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.1.2.3", "[::1]", "169.254.169.254", "[fd00::1]"]
)
def test_private_addresses_have_to_be_meant(host: str) -> None:
    assert "allow_private" in refused(lambda: Webhook(f"https://{host}/", secret=None))
    Webhook(f"https://{host}/", secret=None, allow_private=True).close()


def test_public_is_what_the_internet_has() -> None:
    for address in ("8.8.8.8", "2600::1", "64:ff9b::808:808", "::ffff:8.8.8.8"):
        assert is_public(address), address
    for address in (
        "0.0.0.0",  # noqa: S104 - no address to bind to, one to refuse
        "100.64.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ):
        assert not is_public(address), address


def test_without_urllib3_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["urllib3"] = None
from dwkernel import errors, sinks
try:
    sinks.Webhook
except errors.Invalid as error:
    print(error.code, "dwkernel[webhook]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "sink.option True\n"
