use super::*;
use crate::entry::Entries;
use dwk_base::codes;
use proptest::prelude::*;

/// (sequence, time, body) of each message, the header and the content of a frame.
type Made = (Vec<(u64, u64, Vec<u8>)>, Header, Vec<u8>);

/// A body as it would be, without being an envelope.
fn fake(id: Option<&str>, length: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    match id {
        Some(id) => writer.u8(1).str(id),
        None => writer.u8(0),
    };
    writer.bytes(&vec![7; length]);
    writer.finish()
}

prop_compose! {
    fn frames()(
        first in 1u64..1_000_000,
        steps in prop::collection::vec((1u64..5, 0u64..1_000_000, 0usize..40_000, any::<bool>()), 1..20),
        trailing in 0u64..5,
        is_block: bool,
    ) -> Made {
        let (mut sequence, mut unix_ns) = (first - 1, 5_000);
        let mut writer = FrameWriter::new(first, is_block);
        let (mut messages, mut content) = (Vec::new(), Vec::new());
        for (step, later, length, has_id) in steps {
            (sequence, unix_ns) = (sequence + step, unix_ns + later);
            let body = fake(has_id.then_some("id"), length);
            writer.push(Place { sequence, unix_ns }, &body, has_id);
            messages.push((sequence, unix_ns, body));
            content.extend(writer.take());
        }
        (messages, writer.finish(sequence + trailing), content)
    }
}

fn read(header: &Header, content: &[u8]) -> Result<Vec<(u64, u64, Vec<u8>)>> {
    let mut all = Vec::new();
    for index in 0..header.chunks() {
        let chunk = header.chunk(index, content.len() as u64)?;
        let bytes = &content[chunk.range.start as usize..chunk.range.end as usize];
        let mut entries = Entries::new(bytes, chunk.place, chunk.last);
        while let Some(entry) = entries.next()? {
            all.push((entry.sequence, entry.unix_ns, entry.body.to_vec()));
        }
    }
    Ok(all)
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written_chunk_by_chunk((messages, header, content) in frames()) {
        let again = Header::decode(header.first, &header.encode()).unwrap();
        prop_assert_eq!(&again, &header);
        prop_assert_eq!(read(&header, &content).unwrap(), messages.clone());
        prop_assert_eq!(header.count, messages.len() as u64);
        let bytes: usize = messages.iter().map(|(_, _, body)| body.len()).sum();
        prop_assert_eq!(header.bytes, bytes as u64);
        for mark in &header.marks {
            let before = messages.iter().filter(|(sequence, ..)| *sequence < mark.sequence);
            prop_assert_eq!(before.clone().count() as u64, mark.count);
            prop_assert_eq!(before.map(|(_, _, body)| body.len() as u64).sum::<u64>(), mark.bytes);
        }
        for (sequence, ..) in messages {
            let chunk = header.chunk(header.chunk_of(sequence), content.len() as u64).unwrap();
            prop_assert!(chunk.place.sequence <= sequence && sequence <= chunk.last);
        }
    }

    #[test]
    fn only_a_block_has_marks_and_its_chunks_are_bounded((messages, header, content) in frames()) {
        prop_assert!(header.is_block || header.marks.is_empty());
        let largest = messages.iter().map(|(_, _, body)| body.len()).max().unwrap_or(0);
        if header.is_block {
            for index in 0..header.chunks() {
                let chunk = header.chunk(index, content.len() as u64).unwrap();
                let bytes = (chunk.range.end - chunk.range.start) as usize;
                prop_assert!(bytes <= CHUNK_BYTES + largest + 20);
            }
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_frame_and_never_a_panic(
        (_, header, content) in frames(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut body = header.encode();
        for (at, value) in &hits {
            let at = at.index(body.len());
            body[at] = *value;
        }
        if let Ok(header) = Header::decode(header.first, &body) {
            drop(read(&header, &content));
        }
        let mut content = content;
        for (at, value) in hits {
            let at = at.index(content.len());
            content[at] = value;
        }
        drop(read(&header, &content));
        drop(read(&header, &content[..cut.index(content.len())]));
        let body = header.encode();
        prop_assert!(Header::decode(header.first, &body[..cut.index(body.len())]).is_err());
    }
}

#[test]
fn another_version_is_refused() {
    let mut writer = FrameWriter::new(1, false);
    writer.push(Place { sequence: 1, unix_ns: 9 }, &fake(None, 3), false);
    let mut body = writer.finish(1).encode();
    body[0] = 1;
    assert!(Header::decode(1, &body).unwrap_err().is(&codes::FORMAT_NEWER));
}

/// Byte by byte what docs/format/stream.md says.
#[test]
fn the_golden_frame_keeps_its_bytes() {
    let mut writer = FrameWriter::new(5, false);
    writer.push(Place { sequence: 5, unix_ns: 0x0201 }, &fake(Some("a"), 2), true);
    writer.push(Place { sequence: 7, unix_ns: 0x0203 }, &fake(None, 1), false);
    assert_eq!(writer.take(), b"\0\0\x01\x01a\x02\x07\x07\x01\x02\0\x01\x07");
    let body = writer.finish(8).encode();
    assert_eq!(body, b"\0\0\x03\x02\x09\x01\x01\x02\0\0\0\0\0\0\x02\0");
}
