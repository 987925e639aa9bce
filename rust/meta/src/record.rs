//! What one commit says, as it lies in the journal: a list of operations, applied in order.
//!
//! ```text
//! record   := version:u8 count:varint operation*
//! operation:= kind:u8 …                                   (docs/format/record.md)
//! ```

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{Result, StripeId};
use dwk_pool::{Damage, Stripe};

use crate::row::Content;
use crate::run::RunRef;

const VERSION: u8 = 0;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation<'a> {
    /// A row is written.
    Put { key: &'a [u8], body: &'a [u8], content: NewContent<'a> },
    /// A row goes.
    Delete { key: &'a [u8] },
    /// A stripe was written.
    AddStripe(Stripe),
    /// A stripe lies elsewhere now.
    MoveStripe(Stripe),
    /// A stripe that nobody refers to goes.
    DropStripe(StripeId),
    /// A row's content lies elsewhere now, if the row is still of that version.
    Relocate { key: &'a [u8], version: u64, content: Content },
    /// Everything up to `folded` is in these runs.
    Root(Root),
    /// All damage that is known: what earlier ones said does not count any more.
    Damage(Damage),
}

/// A written row's content.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NewContent<'a> {
    None,
    /// As the row that is there has it.
    Keep,
    /// In this record.
    Inline {
        bytes: &'a [u8],
        check: u64,
    },
    /// In stripes.
    Pieces(Content),
}

/// Where the map was checkpointed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Root {
    /// The last record that the runs contain.
    pub(crate) folded: u64,
    /// Oldest first; a later run's entries win.
    pub(crate) runs: Vec<RunRef>,
}

/// Builds a record.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    writer: Writer,
    count: u64,
}

impl RecordWriter {
    pub(crate) fn new() -> Self {
        Self { writer: Writer::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, operation: &Operation<'_>) {
        self.count += 1;
        let writer = &mut self.writer;
        match operation {
            Operation::Put { key, body, content } => {
                writer.u8(1).bytes(key).bytes(body);
                match content {
                    NewContent::None => writer.u8(0),
                    NewContent::Keep => writer.u8(1),
                    NewContent::Inline { bytes, check } => writer.u8(2).u64(*check).bytes(bytes),
                    NewContent::Pieces(content) => {
                        content.encode(writer.u8(3));
                        writer
                    }
                };
            }
            Operation::Delete { key } => {
                writer.u8(2).bytes(key);
            }
            Operation::AddStripe(stripe) => stripe.encode(writer.u8(3)),
            Operation::MoveStripe(stripe) => stripe.encode(writer.u8(4)),
            Operation::DropStripe(id) => {
                writer.u8(5).raw(id.as_bytes());
            }
            Operation::Relocate { key, version, content } => {
                content.encode(writer.u8(6).bytes(key).varint(*version));
            }
            Operation::Root(root) => {
                writer.u8(7).varint(root.folded).varint(root.runs.len() as u64);
                root.runs.iter().for_each(|run| run.encode(writer));
            }
            Operation::Damage(damage) => {
                writer.u8(8).u8(damage.more.into()).varint(damage.stripes.len() as u64);
                for (id, shards) in &damage.stripes {
                    writer.raw(id.as_bytes()).bytes(shards);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn finish(self) -> Bytes {
        let mut head = Writer::with_capacity(self.writer.len() + 11);
        head.u8(VERSION).varint(self.count).raw(self.writer.as_slice());
        Bytes::from(head.finish())
    }
}

/// Visits the operations of a record with the offset at which each one's inline content starts.
pub(crate) fn visit<'a>(
    record: &'a [u8],
    mut each: impl FnMut(Operation<'a>, u32) -> Result<()>,
) -> Result<()> {
    let mut reader = Reader::new(record, "a journal record");
    if reader.u8()? != VERSION {
        return Err(reader.damaged("an unknown version"));
    }
    for _ in 0..reader.count(1)? {
        let operation = decode(&mut reader)?;
        let inline = match &operation {
            Operation::Put { content: NewContent::Inline { bytes, .. }, .. } => bytes.len(),
            _ => 0,
        };
        // An inline content is the last field of its operation.
        let offset = record.len() - reader.rest().len() - inline;
        each(operation, offset as u32)?;
    }
    reader.end()
}

fn decode<'a>(reader: &mut Reader<'a>) -> Result<Operation<'a>> {
    Ok(match reader.u8()? {
        1 => {
            let (key, body) = (reader.bytes()?, reader.bytes()?);
            let content = match reader.u8()? {
                0 => NewContent::None,
                1 => NewContent::Keep,
                2 => {
                    let check = reader.u64()?;
                    NewContent::Inline { check, bytes: reader.bytes()? }
                }
                3 => NewContent::Pieces(Content::decode(reader)?),
                _ => return Err(reader.damaged("an unknown content")),
            };
            Operation::Put { key, body, content }
        }
        2 => Operation::Delete { key: reader.bytes()? },
        3 => Operation::AddStripe(Stripe::decode(reader)?),
        4 => Operation::MoveStripe(Stripe::decode(reader)?),
        5 => Operation::DropStripe(StripeId::from_bytes(reader.array()?)),
        6 => {
            let (key, version) = (reader.bytes()?, reader.varint()?);
            Operation::Relocate { key, version, content: Content::decode(reader)? }
        }
        7 => {
            let folded = reader.varint()?;
            let count = reader.count(1)?;
            let runs = (0..count).map(|_| RunRef::decode(reader)).collect::<Result<_>>()?;
            Operation::Root(Root { folded, runs })
        }
        8 => Operation::Damage(decode_damage(reader)?),
        _ => return Err(reader.damaged("an unknown operation")),
    })
}

fn decode_damage(reader: &mut Reader<'_>) -> Result<Damage> {
    let more = reader.u8()? != 0;
    let mut damage = Damage { more, ..Damage::default() };
    for _ in 0..reader.count(17)? {
        let id = StripeId::from_bytes(reader.array()?);
        damage.stripes.insert(id, reader.bytes()?.to_vec());
    }
    Ok(damage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_inline_content_is_found_in_it() {
        let mut writer = RecordWriter::new();
        let inline = NewContent::Inline { bytes: b"hello", check: 5 };
        let operations = [
            Operation::Put { key: b"a", body: b"b", content: inline },
            Operation::Delete { key: b"c" },
            Operation::DropStripe(StripeId::from_u128(9)),
            Operation::Put { key: b"k", body: b"", content: NewContent::Keep },
            Operation::Relocate { key: b"k", version: 8, content: Content::default() },
            Operation::Root(Root { folded: 77, runs: Vec::new() }),
            Operation::Damage(Damage {
                stripes: [
                    (StripeId::from_u128(9), vec![0, 5]),
                    (StripeId::from_u128(3), vec![254]),
                ]
                .into(),
                more: true,
            }),
            Operation::Damage(Damage::default()),
        ];
        for operation in &operations {
            writer.push(operation);
        }
        let record = writer.finish();
        let mut read = Vec::new();
        visit(&record, |operation, offset| {
            if let Operation::Put { content: NewContent::Inline { bytes, .. }, .. } = &operation {
                assert_eq!(&record[offset as usize..][..bytes.len()], b"hello");
            }
            read.push(operation);
            Ok(())
        })
        .unwrap();
        assert_eq!(read, operations);
        for cut in 0..record.len() {
            assert!(visit(&record[..cut], |_, _| Ok(())).is_err(), "cut at {cut}");
        }
    }
}
