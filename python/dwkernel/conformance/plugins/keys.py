"""The kind `key_source`."""

from __future__ import annotations

from dwkernel import errors
from dwkernel.conformance.plugins.core import Broken, Cases, LeftOut, Subject, hold

__all__ = ["CASES"]

CASES = Cases("key_source")
_KEY_BYTES = 32


@CASES.claim("Return bytes of length 32; text and hexadecimal digits have to be decoded.")
def a_key_has_32_bytes_and_stays_the_same(subject: Subject) -> None:
    """Each key that it has is 32 bytes, and the same each time."""
    names = subject.samples.keys
    if not names:
        raise LeftOut("keys in conformance.toml name none that it has")  # noqa: TRY003 - told
    with subject.running() as running, running.used() as it:
        for name in names:
            key = it.get(name)
            is_key = isinstance(key, bytes) and len(key) == _KEY_BYTES
            hold(is_key, f"the key {name} is {type(key).__name__} of length {len(key)}")
            hold(it.get(name) == key, f"the key {name} is another one each time")


@CASES.claim("Raise dwkernel.errors.new(code, …) for a key that it has not; never make one up.")
def a_key_that_is_not_there_is_refused(subject: Subject) -> None:
    """A name that nobody gave to a key is refused with an error of dwkernel."""
    with subject.running() as running, running.used() as it:
        for name in ("conformance-no-such-key", "", "../x"):
            try:
                it.get(name)
            except errors.DwError:
                continue
            except Exception as error:
                text = f"get({name!r}) raised {type(error).__name__}, and no error of dwkernel"
                raise Broken(text) from error
            raise Broken(f"get({name!r}) returned a key")  # noqa: EM102, TRY003 - told
