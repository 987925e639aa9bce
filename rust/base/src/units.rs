//! Sizes and durations as people write them.

use std::time::Duration;

use crate::{Error, Result, codes};

/// Bytes from `"10 GiB"`, `"512"`, `"1.5MB"`: decimal (kB, MB, …) and binary (KiB, MiB, …) units, any case.
///
/// # Errors
/// `unit.invalid`
pub fn parse_size(text: &str) -> Result<u64> {
    let (number, unit) = split(text).ok_or_else(|| invalid("size", text))?;
    let power = |base: f64, letter: &str| {
        "kmgtpe".find(letter).map(|index| base.powi(i32::try_from(index).unwrap_or(0) + 1))
    };
    let lower = unit.to_ascii_lowercase();
    let scale = match lower.as_str() {
        "" | "b" => Some(1.0),
        unit if unit.len() == 3 && unit.ends_with("ib") => power(1024.0, &unit[..1]),
        unit if unit.len() == 2 && unit.ends_with('b') => power(1000.0, &unit[..1]),
        _ => None,
    };
    let bytes = scale.map(|scale| number * scale).ok_or_else(|| invalid("size", text))?;
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(invalid("size", text)) }
}

/// A duration from `"30s"`, `"250 ms"`, `"2m"`, `"1.5h"`, `"7d"`, or a plain number of seconds.
///
/// # Errors
/// `unit.invalid`
pub fn parse_duration(text: &str) -> Result<Duration> {
    let (number, unit) = split(text).ok_or_else(|| invalid("duration", text))?;
    let seconds = match unit {
        "ns" => number / 1e9,
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86400.0,
        "w" => number * 604_800.0,
        _ => return Err(invalid("duration", text)),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid("duration", text))
}

/// `bytes` for people: `"1.5 MiB"`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn invalid(what: &str, text: &str) -> Error {
    Error::new(&codes::UNIT_INVALID, format!("not a {what}: {text:?}")).with("value", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_decimal_and_binary_units() {
        for (text, bytes) in
            [("10 GiB", 10 << 30), ("512", 512), ("1.5MB", 1_500_000), ("4kib", 4096), ("7 B", 7)]
        {
            assert_eq!(parse_size(text).ok(), Some(bytes), "{text}");
        }
        for text in
            ["", "GiB", "-1", "1 XiB", "99999 EiB", "1..2 kB", "nan", "1kBB", "1 µib", "1 kb b"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_take_units() {
        for (text, us) in [
            ("3000 ns", 3),
            ("7us", 7),
            ("7 µs", 7),
            ("250 ms", 250_000),
            ("30s", 30_000_000),
            ("2", 2_000_000),
            ("3m", 180_000_000),
            ("3 min", 180_000_000),
            ("1.5h", 5_400_000_000),
            ("2d", 172_800_000_000),
            ("2w", 1_209_600_000_000),
        ] {
            assert_eq!(parse_duration(text).ok(), Some(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "s", "1y", "-3s", "99999999999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (12, "12 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }
}
