"""dwkernel.errors: one class per kind, one code per cause."""

from __future__ import annotations

import errno
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dwkernel as dw
from dwkernel import _native, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

BUILTINS = {
    errors.Invalid: ValueError,
    errors.NotFound: FileNotFoundError,
    errors.Exists: FileExistsError,
    errors.Denied: PermissionError,
    errors.Unavailable: ConnectionError,
    errors.Full: OSError,
    errors.Timeout: TimeoutError,
    errors.Unsupported: NotImplementedError,  # a class of errors, no open end
    errors.Internal: RuntimeError,
}


def test_every_kind_of_the_registry_has_a_class_of_its_own() -> None:
    kinds = {code.kind for code in errors.registry().values()}
    classes = {kind: errors.class_of(kind) for kind in kinds}
    assert errors.DwError not in classes.values()
    assert len(set(classes.values())) == len(kinds)


@pytest.mark.parametrize(("cls", "builtin"), BUILTINS.items())
def test_a_class_is_also_the_builtin_that_programs_expect(
    cls: type[errors.DwError], builtin: type[Exception]
) -> None:
    assert issubclass(cls, builtin)


def test_codes_are_sorted_unique_and_come_from_the_native_registry() -> None:
    names = [entry[0] for entry in _native.error_registry()]
    assert names == sorted(set(names))
    assert list(errors.registry()) == names


def test_the_registry_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = list(_native.error_registry())
    seen: list[int] = []

    def slowly() -> Iterator[object]:
        for number, entry in enumerate(entries):
            # Another thread looks while this one is half done.
            if number == len(entries) // 2:
                seen.append(len(errors._registry))
                raise KeyboardInterrupt
            yield entry

    monkeypatch.setattr(errors, "_registry", {})
    with monkeypatch.context() as patch:
        patch.setattr(_native, "error_registry", slowly)
        with pytest.raises(KeyboardInterrupt):
            errors.registry()
    assert seen == [0]
    assert len(errors.registry()) == len(entries)


def test_an_error_says_what_happened_what_to_do_and_its_code() -> None:
    with pytest.raises(errors.Invalid) as caught:
        dw.hashing.blake3(b"", key=b"short")
    error = caught.value
    assert str(error) == "the key has 5 bytes. A key is exactly 32 bytes [hash.key]"
    assert (error.code, error.retryable, error.details) == ("hash.key", False, {})
    assert len(error.correlation_id or "") == 32


def test_details_come_across_from_the_native_side() -> None:
    with pytest.raises(dw.DwError) as caught:
        dw.hashing.crc64nvme(7)  # type: ignore[arg-type]
    assert caught.value.code == "buffer.type"
    assert caught.value.details == {"type": "int"}


@pytest.mark.parametrize("code", list(errors.registry()))
def test_every_error_survives_a_process_boundary(code: str) -> None:
    error = errors.new(code, "something happened", key="docs/a")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert (copy.code, copy.details, copy.retryable) == (code, {"key": "docs/a"}, error.retryable)


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("pool.full", errno.ENOSPC),
        ("object.not_found", errno.ENOENT),
        ("store.exists", errno.EEXIST),
        ("drive.read_only", errno.EACCES),
        ("context.deadline", errno.ETIMEDOUT),
    ],
)
def test_an_error_has_the_errno_that_programs_look_for(code: str, number: int) -> None:
    error = errors.new(code, "no room for 3 bytes")
    assert isinstance(error, OSError)
    assert error.errno == number
    assert str(error).startswith("no room for 3 bytes. ")


def test_generated_docs_match_the_code() -> None:
    # In a fresh interpreter: what other tests registered is not part of it.
    code = f"from dwkernel import _docs; from pathlib import Path; p = Path({str(ROOT)!r})"
    command = [sys.executable, "-c", f"{code}; print(_docs.stale_pages(p, write=False))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"run python -m dwkernel._docs: {done.stdout}"
