//! Names, and the rows that streams are kept under (docs/format/stream.md).

use dwk_base::{Error, Result, codes};

/// First byte of a stream's own row.
const STREAM_ROW: u8 = 0x10;
/// First byte of a row that holds messages.
const FRAME_ROW: u8 = 0x11;
/// First byte of a stream's mark.
const MARK_ROW: u8 = 0x12;
/// First byte of a message that is not due yet.
const DELAYED_ROW: u8 = 0x13;
/// First byte of a consumer's row.
pub(crate) const CONSUMER_ROW: u8 = 0x14;
/// First byte of a dead letter.
const LETTER_ROW: u8 = 0x15;

/// The longest name of a stream, in characters.
pub const NAME_CHARACTERS_MAX: usize = 128;
/// The longest name of a tenant, in bytes.
const TENANT_BYTES_MAX: usize = 255;

/// Between tenant and name; in neither.
const SEPARATOR: u8 = 0;

/// Fails unless `name` may name a stream: 1 to 128 characters from a-z, A-Z, 0-9, `-` and `_`.
///
/// # Errors
/// `stream.name`
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_CHARACTERS_MAX).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_CHARACTERS_MAX).collect();
    Err(Error::new(&codes::STREAM_NAME, format!("not a stream's name: {shown:?}"))
        .with("stream", shown))
}

/// Fails unless `tenant` may be a tenant's name, as the bus takes it.
///
/// # Errors
/// `context.invalid`
pub(crate) fn check_tenant(tenant: &str) -> Result<()> {
    if tenant.len() <= TENANT_BYTES_MAX && !tenant.contains(char::is_control) {
        return Ok(());
    }
    Err(Error::new(&codes::CONTEXT_INVALID, format!("not a tenant: {tenant:?}")))
}

/// The row of a stream.
pub(crate) fn stream_row(tenant: &str, name: &str) -> Vec<u8> {
    [&[STREAM_ROW], tenant.as_bytes(), &[SEPARATOR], name.as_bytes()].concat()
}

/// From where to where all streams' rows lie.
pub(crate) const STREAM_ROWS: (&[u8], &[u8]) = (&[STREAM_ROW], &[STREAM_ROW + 1]);
/// From where to where all rows with messages lie.
pub(crate) const FRAME_ROWS: (&[u8], &[u8]) = (&[FRAME_ROW], &[FRAME_ROW + 1]);
/// From where to where all rows of messages that are not due yet lie.
pub(crate) const DELAYED_ROWS: (&[u8], &[u8]) = (&[DELAYED_ROW], &[DELAYED_ROW + 1]);

/// From where to where the rows lie that are removed with their stream.
pub(crate) const ROWS_OF_STREAMS: [(&[u8], &[u8]); 4] = [
    FRAME_ROWS,
    DELAYED_ROWS,
    (&[CONSUMER_ROW], &[CONSUMER_ROW + 1]),
    (&[LETTER_ROW], &[LETTER_ROW + 1]),
];

/// The row of a consumer.
pub(crate) fn consumer_row(id: u64, name: &str) -> Vec<u8> {
    [&numbered(CONSUMER_ROW, id, &[]), name.as_bytes()].concat()
}

/// The row of a consumer's dead letter.
pub(crate) fn letter_row(id: u64, name: &str, sequence: u64) -> Vec<u8> {
    [&letter_rows(id, name).0[..], &sequence.to_be_bytes()].concat()
}

/// From where to where the dead letters of a consumer lie.
pub(crate) fn letter_rows(id: u64, name: &str) -> (Vec<u8>, Vec<u8>) {
    let rows = |end| [&numbered(LETTER_ROW, id, &[]), name.as_bytes(), &[end]].concat();
    (rows(SEPARATOR), rows(SEPARATOR + 1))
}

/// From where to where the rows of a kind lie that belong to a stream.
pub(crate) fn rows_of(kind: u8, id: u64) -> (Vec<u8>, Vec<u8>) {
    let high = id.checked_add(1).map(|next| numbered(kind, next, &[]));
    (numbered(kind, id, &[]), high.unwrap_or_else(|| vec![kind + 1]))
}

/// Tenant and name of a stream's row.
///
/// # Errors
/// `format.damaged`
pub(crate) fn stream_of(key: &[u8]) -> Result<(&str, &str)> {
    let damaged = || Error::new(&codes::FORMAT_DAMAGED, "a stream's row has no name");
    let text = std::str::from_utf8(key.get(1..).unwrap_or_default()).map_err(|_| damaged())?;
    text.split_once(char::from(SEPARATOR)).ok_or_else(damaged)
}

/// The row of the messages from `first` on.
pub(crate) fn frame_row(id: u64, first: u64) -> Vec<u8> {
    numbered(FRAME_ROW, id, &[first])
}

/// The row of what a stream remembers beside its messages.
pub(crate) fn mark_row(id: u64) -> Vec<u8> {
    numbered(MARK_ROW, id, &[])
}

/// The row of a message that is due at `due_unix_ns`.
pub(crate) fn delayed_row(id: u64, due_unix_ns: u64, nonce: u64) -> Vec<u8> {
    numbered(DELAYED_ROW, id, &[due_unix_ns, nonce])
}

/// The stream's number and the number after it, of a row of messages or of one that is not due yet.
///
/// # Errors
/// `format.damaged`
pub(crate) fn numbers_of(key: &[u8]) -> Result<(u64, u64)> {
    Ok((number(key, 1)?, number(key, 9)?))
}

/// The stream's number, of any row of one but its own.
///
/// # Errors
/// `format.damaged`
pub(crate) fn id_of(key: &[u8]) -> Result<u64> {
    number(key, 1)
}

fn number(key: &[u8], at: usize) -> Result<u64> {
    let bytes = key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    let damaged = || Error::new(&codes::FORMAT_DAMAGED, "a stream's row has no number");
    bytes.map(u64::from_be_bytes).ok_or_else(damaged)
}

fn numbered(kind: u8, id: u64, numbers: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 + 8 * numbers.len());
    key.push(kind);
    key.extend_from_slice(&id.to_be_bytes());
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_stream_and_then_by_number_and_tell_both() {
        let keys = [(1, 2), (1, 256), (1, u64::MAX), (2, 0), (256, 1)];
        let rows: Vec<_> = keys.iter().map(|&(id, first)| frame_row(id, first)).collect();
        assert!(rows.is_sorted());
        for (row, numbers) in rows.iter().zip(keys) {
            assert_eq!(numbers_of(row).unwrap(), numbers);
        }
        assert_eq!(numbers_of(&delayed_row(3, 4, 5)).unwrap(), (3, 4));
        assert!(numbers_of(&mark_row(1)).is_err());
        assert!(numbers_of(b"").is_err());
    }

    #[test]
    fn a_stream_is_found_under_its_tenant_and_names_have_rules() {
        assert_eq!(stream_of(&stream_row("acme", "orders")).unwrap(), ("acme", "orders"));
        assert_eq!(stream_of(&stream_row("", "orders")).unwrap(), ("", "orders"));
        assert!(stream_of(b"\x10orders").is_err());
        assert!(stream_of(b"\x10\xff\0a").is_err());
        for name in ["", "a b", "ä", "a.b", &"x".repeat(129), "a\0"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(128)).is_ok() && check_name("a-B_9").is_ok());
        assert!(check_tenant("a\0").is_err() && check_tenant("").is_ok());
    }
}
