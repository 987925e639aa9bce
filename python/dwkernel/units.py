"""Sizes and durations as people write them.

>>> parse_size("10 GiB"), parse_size(512), parse_duration("250 ms"), format_size(1536)
(10737418240, 512, 0.25, '1.5 KiB')
"""

from __future__ import annotations

from dwkernel import _native, errors

__all__ = ["Duration", "Size", "format_duration", "format_size", "parse_duration", "parse_size"]

Size = int | str
"""Bytes, or text such as `"10 GiB"`."""
Duration = float | str
"""Seconds, or text such as `"30s"`."""

_MINUTE_S = 60
_HOUR_S = 3600


def parse_size(size: Size) -> int:
    """Return the bytes of `size`: an int as it is, text with a decimal or binary unit.

    Raises:
        Invalid: `unit.invalid`

    """
    if isinstance(size, str):
        return _native.parse_size(size)
    given: object = size  # callers without a type checker give anything
    if not isinstance(given, int) or given < 0:
        raise errors.new("unit.invalid", f"not a size: {size}", value=size)
    return size


def parse_duration(duration: Duration) -> float:
    """Return the seconds of `duration`: a number as it is, text with a unit (ns … w).

    Raises:
        Invalid: `unit.invalid`

    """
    if isinstance(duration, str):
        return _native.parse_duration(duration)
    given: object = duration  # callers without a type checker give anything
    try:
        if isinstance(given, int | float) and 0 <= given < float("inf"):
            return float(given)
    except OverflowError:
        pass  # an int beyond all floats
    raise errors.new("unit.invalid", f"not a duration: {duration}", value=duration)


def format_size(size: int) -> str:
    """Return `size` bytes for people."""
    return _native.format_size(size)


def format_duration(seconds: float) -> str:
    """Return a duration for people.

    >>> [format_duration(s) for s in (0.0042, 1.5, 75, 7265)]
    ['4.2 ms', '1.5 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // _HOUR_S)} h {int(seconds % _HOUR_S // 60)} min"
