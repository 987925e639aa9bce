"""A sink that appends messages to files, a line of JSON each."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dwkernel import errors
from dwkernel.sinks import cloudevents
from dwkernel.sinks.outcome import Outcome
from dwkernel.sinks.sink import Sink
from dwkernel.sinks.tail import HEAD_BYTES, Written, whole_bytes
from dwkernel.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dwkernel._native import Message
    from dwkernel.units import Duration, Size

__all__ = ["Files"]

_CURRENT = "current.jsonl"
_LOCK = ".lock"
_ROTATED = re.compile(r"\d{20}-(?P<time>\d{8}T\d{12}Z)\.jsonl")
# How lines of each format begin, and that is all that is ever read of them.
_ID = rb'"id":"(?P<id>(?:[^"\\]|\\.){1,600})"'
_BEGIN = {
    "jsonl": re.compile(rb'\{"sequence":(?P<sequence>\d+),' + _ID),
    "cloudevents": re.compile(
        rb'\{"specversion":"1\.0",' + _ID + rb',"sequence":"(?P<sequence>\d{20})"'
    ),
}
_quoted = json.encoder.encode_basestring_ascii


class Files(Sink):
    """Appends messages to files, a line of JSON each, synced before they are acknowledged.

    Lines go to `current.jsonl`; a full one is renamed to the first line's sequence number and the
    moment, `00000000000000000001-20260131T120000000000Z.jsonl`. The stream's order is kept: what
    cannot be written (a full disk) holds back all that follows and is tried again.

    A line of format `"jsonl"` has `sequence`, `id`, `time`, `subject`, where they are set `key`,
    `schema`, `priority`, `correlation_id` and `headers`, and the content as one of `data` (JSON, if
    the message says that it is), `text` (UTF-8) or `base64`.

    After a crash a torn last line is cut off. With `exactly_once` each message is there once also
    after a kill between writing and acknowledging: what comes again is looked for in the last
    131,072 lines. After a power cut a line in the middle of the last ones may be damaged; its
    message was not acknowledged and comes again behind it.
    """

    batch = 1000
    order = "stream"

    def __init__(  # noqa: PLR0913 - each option stands alone
        self,
        directory: str | os.PathLike[str],
        *,
        format: Literal["jsonl", "cloudevents"] = "jsonl",  # noqa: A002 - the field's word
        rotate_bytes: Size | None = "128 MiB",
        rotate_every: Duration | None = None,
        keep: int | None = None,
        sync: bool = True,
        exactly_once: bool = True,
    ) -> None:
        """Open the directory, made if it isn't there, and put its end in order.

        Args:
            directory: for this sink alone; a lock holds others off.
            format: `"jsonl"`, or `"cloudevents"`: CloudEvents 1.0.2 in its JSON format.
            rotate_bytes: a file that would get longer is renamed; None: no limit.
            rotate_every: a file that was begun longer ago is renamed when the next message comes.
            keep: so many renamed files are kept, the newest; None keeps all.
            sync: lines are synced to the disk before they are acknowledged. Without it a power cut
                may cost what was acknowledged.
            exactly_once: what is there already is not written again.

        Raises:
            Invalid: `sink.option`: the directory can't be written, another sink has it, or a file
                in it is none of this format; `unit.invalid`

        """
        if format not in _BEGIN:
            text = f'format={format!r} is neither "jsonl" nor "cloudevents"'
            raise errors.new("sink.option", text)
        given: object = keep  # callers without a type checker give anything
        if given is not None and (not isinstance(given, int) or given < 1):
            raise errors.new("sink.option", f"keep={keep!r} is no number from 1 on, and not None")
        self._directory = Path(directory)
        self._format = format
        self._rotate_bytes = None if rotate_bytes is None else parse_size(rotate_bytes)
        self._rotate_s = None if rotate_every is None else parse_duration(rotate_every)
        self._keep = keep
        self._sync = sync
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._source = "/dwkernel/streams"
        # Of the current file: where it is, where its last whole line ends, what its first line has.
        self._file: int | None = None
        self._end = 0
        self._first: tuple[int, float] | None = None
        self._guard: int | None = self._hold()
        try:
            self._open()
            self._written = Written(self._newest_first, _BEGIN[format]) if exactly_once else None
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, errors.DwError):
                raise self._unusable(error) from error
            raise

    def attached(self, stream: str) -> None:
        """Name the stream in CloudEvents' `source`."""
        self._source = f"/dwkernel/streams/{cloudevents.encoded(stream)}"

    def deliver(self, messages: Sequence[Message]) -> list[Outcome]:
        """Append lines, and sync them; all of them or none."""
        with self._lock:
            guard = self._guard
            if guard is None or self._pid != os.getpid():
                raise errors.new("sink.failed", f"{self!r} is closed, or in another process")
            written = self._written
            fresh = [one for one in messages if written is None or not written.holds(one)]
            try:
                if fresh:
                    self._append(fresh)
            except OSError as error:
                outcome = Outcome.failed(f"{self._directory}: {error.strerror or error}")
                return [outcome] * len(messages)
            if fresh and written is not None:
                written.wrote(fresh[-1].sequence, fresh[-1].id)
            return [Outcome.taken()] * len(messages)

    def close(self) -> None:
        """Close the file, and let others have the directory."""
        with self._lock:
            self._shut()
            guard, self._guard = self._guard, None
            if guard is not None:
                if self._pid == os.getpid():
                    # For forked children too, that have the descriptor.
                    fcntl.flock(guard, fcntl.LOCK_UN)
                os.close(guard)

    def __repr__(self) -> str:
        """Name the directory."""
        return f"<Files in {str(self._directory)!r}>"

    # --- Lines ------------------------------------------------------------------------------------

    def _line(self, message: Message) -> str:
        if self._format == "cloudevents":
            return cloudevents.to_json(message, self._source) + "\n"
        time_text = message.published_at.isoformat().replace("+00:00", "Z")
        parts = [
            f'{{"sequence":{message.sequence or 0},"id":{_quoted(message.id)}',
            f'"time":"{time_text}","subject":{_quoted(message.subject)}',
        ]
        parts += [
            f'"{name}":{_quoted(value)}'
            for name, value in (
                ("key", message.key),
                ("schema", message.schema),
                ("correlation_id", message.correlation_id),
            )
            if value is not None
        ]
        if message.priority:
            parts.append(f'"priority":{message.priority}')
        headers = message.headers
        if headers:
            parts.append(f'"headers":{json.dumps(headers, separators=(",", ":"))}')
        parts.append(_content(message))
        return ",".join(parts) + "}\n"

    def _append(self, messages: Sequence[Message]) -> None:
        data = "".join(map(self._line, messages)).encode()
        if self._file is not None and not self._is_there(self._file):
            self._shut()
        if self._is_due(len(data)):
            self._rotate()
        if self._file is None:
            self._open()
        first = messages[0]
        begun = self._first or (first.sequence or 0, self._begun(is_new=True))
        file = self._file
        if file is None:
            raise OSError(errno.EBADF, "no file is open")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
        except OSError:
            self._undo(file)
            raise
        if self._sync:
            try:
                os.fdatasync(file)
            except OSError:
                # What a failed sync left on the disk nobody knows, and a second one would lie. The
                # file ends before it; what follows goes to another one.
                self._undo(file)
                self._shut()
                with contextlib.suppress(OSError):
                    self._rename()
                raise
        self._end += len(data)
        self._first = begun

    def _undo(self, file: int) -> None:
        """Cut off what was written in part."""
        try:
            os.ftruncate(file, self._end)
        except OSError:
            self._shut()  # the next opening cuts it

    # --- Files ------------------------------------------------------------------------------------

    def _hold(self) -> int:
        """Make the directory, and keep others out of it."""
        try:
            self._make()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            guard = os.open(self._directory / _LOCK, flags, 0o644)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(guard)
            text = f"another sink writes in {str(self._directory)!r}"
            raise errors.new("sink.option", text) from error
        return guard

    def _make(self) -> None:
        """Make the directory, and those that it lies in, durably."""
        missing = [one for one in (self._directory, *self._directory.parents) if not one.exists()]
        self._directory.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync(made.parent)

    def _unusable(self, error: OSError) -> errors.DwError:
        text = f"{str(self._directory)!r} can't be written: {error.strerror or error}"
        return errors.new("sink.option", text)

    def _open(self) -> None:
        """Open the current file, or make it; cut off what is torn."""
        path = self._directory / _CURRENT
        end = self._whole_bytes(path) if path.exists() else 0
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(file).st_size > end:
                os.ftruncate(file, end)
            os.fsync(file)
            _sync(self._directory)
            first = self._first_of(path) if end else None
        except OSError:
            os.close(file)
            raise
        self._file, self._end, self._first = file, end, first

    def _whole_bytes(self, path: Path) -> int:
        """Return where the file's whole lines end.

        Raises:
            Invalid: `sink.option`: these are no lines of this sink

        """
        end = whole_bytes(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if not (_BEGIN[self._format].match(head) if end else _could_begin(head, self._format)):
            text = f"{str(path)!r} is not of this sink, or of another format: move it away"
            raise errors.new("sink.option", text)
        return end

    def _is_there(self, file: int) -> bool:
        """Return whether the current file is still where it was, and nobody moved it away."""
        try:
            found = os.stat(self._directory / _CURRENT)  # noqa: PTH116 - beside `fstat`
        except FileNotFoundError:
            found = None
        if found is not None and os.path.samestat(found, os.fstat(file)):
            return True
        self._first, self._end = None, 0
        return False

    def _first_of(self, path: Path) -> tuple[int, float]:
        """Return the number of the first line, and when it was written."""
        with path.open("rb") as file:
            found = _BEGIN[self._format].match(file.read(HEAD_BYTES))
        return (int(found["sequence"]) if found else 0), self._begun(is_new=False)

    def _begun(self, *, is_new: bool) -> float:
        """Return when the current file was begun; the lock's file remembers it."""
        now = time.time()
        guard = self._guard
        if guard is None:
            return now
        if is_new:
            os.pwrite(guard, f"{now:020.6f}\n".encode(), 0)
            return now
        try:
            return min(now, float(os.pread(guard, 20, 0)))
        except ValueError:
            return now

    def _is_due(self, more: int) -> bool:
        if not self._first:
            return False
        if self._rotate_bytes is not None and self._end + more > self._rotate_bytes:
            return True
        return self._rotate_s is not None and time.time() - self._first[1] >= self._rotate_s

    def _rotate(self) -> None:
        self._shut()
        self._rename()
        self._open()
        if self._keep is not None:
            for path in self._rotated()[self._keep :]:
                path.unlink(missing_ok=True)
            _sync(self._directory)

    def _rename(self) -> None:
        """Give the current file its lasting name; nothing that is there is replaced."""
        sequence = self._first[0] if self._first else 0
        while True:
            name = f"{sequence:020d}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.jsonl"
            target = self._directory / name
            if not target.exists():
                break
        current = self._directory / _CURRENT
        if self._end:
            current.rename(target)
        else:
            current.unlink()
        self._first, self._end = None, 0
        _sync(self._directory)

    def _rotated(self) -> list[Path]:
        """Return the renamed files, the newest first."""
        found = [
            (match["time"], path.name, path)
            for path in self._directory.iterdir()
            if (match := _ROTATED.fullmatch(path.name))
        ]
        return [path for _, _, path in sorted(found, reverse=True)]

    def _newest_first(self) -> list[Path]:
        current = self._directory / _CURRENT
        return [path for path in (current, *self._rotated()) if path.exists()]

    def _shut(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(message: Message) -> str:
    data = message.data
    if cloudevents.is_json(cloudevents.content_type(message)):
        text = cloudevents.embedded(data)
        if text is not None:
            return f'"data":{text}'
    try:
        return f'"text":{_quoted(data.decode())}'
    except UnicodeDecodeError:
        return f'"base64":"{base64.b64encode(data).decode()}"'


def _could_begin(head: bytes, form: str) -> bool:
    """Return whether a torn first line is one of this format."""
    begin = {"jsonl": b'{"sequence":', "cloudevents": b'{"specversion":"1.0","id":"'}[form]
    plain = head.partition(b"\0")[0]
    return plain.startswith(begin) or begin.startswith(plain)
