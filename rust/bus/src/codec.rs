//! Envelopes as bytes, for whoever keeps them: spill files, streams.
//!
//! docs/format/envelope.md draws the bytes. Version 0, not frozen.

use std::sync::Arc;

use bytes::Bytes;
use dwk_base::codec::{Reader, Writer};
use dwk_base::{CorrelationId, Error, Result, codes};

use crate::envelope::{Envelope, HEADERS_MAX, Message, Stamped};
use crate::{MessageId, Subject};

const VERSION: u8 = 0;

const CORRELATION: u8 = 1;
const PRINCIPAL: u8 = 1 << 1;
const SCHEMA: u8 = 1 << 2;
const REPLY_TO: u8 = 1 << 3;
const KEY: u8 = 1 << 4;
const KNOWN: u8 = CORRELATION | PRINCIPAL | SCHEMA | REPLY_TO | KEY;

impl Envelope {
    /// The envelope as bytes, which [`decode`](Self::decode) takes.
    pub fn encode(&self) -> Vec<u8> {
        let message = self.message();
        let mut writer = Writer::with_capacity(self.cost_bytes());
        writer.u8(VERSION).u8(present(message)).raw(self.id().as_bytes());
        writer.u64(self.unix_ns()).u8(message.priority);
        writer.str(self.tenant()).str(message.subject.as_str());
        if let Some(correlation) = &message.correlation {
            writer.raw(correlation.as_bytes());
        }
        let reply_to = message.reply_to.as_ref().map(Subject::as_str);
        let texts = [message.principal.as_deref(), message.schema.as_deref(), reply_to];
        for text in texts.into_iter().chain([message.key.as_deref()]).flatten() {
            writer.str(text);
        }
        writer.varint(message.headers.len() as u64);
        for (name, value) in &message.headers {
            writer.str(name).str(value);
        }
        writer.bytes(&message.data);
        writer.finish()
    }

    /// The envelope that `bytes` are; its data shares their memory. The limits of a bus are not checked.
    ///
    /// # Errors
    /// `format.damaged`; `format.newer` for another version.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes, "an envelope");
        let version = reader.u8()?;
        if version != VERSION {
            let text = format!("an envelope of version {version}, not {VERSION}");
            return Err(Error::new(&codes::FORMAT_NEWER, text));
        }
        let present = reader.u8()?;
        if present & !KNOWN != 0 {
            return Err(reader.damaged("unknown fields"));
        }
        let id = MessageId::from_bytes(reader.array()?);
        let unix_ns = reader.u64()?;
        let priority = reader.u8()?;
        let tenant = Some(reader.str()?).filter(|name| !name.is_empty()).map(Arc::from);
        let subject = subject(&mut reader)?;
        let text = |bit: u8, reader: &mut Reader<'_>| -> Result<Option<Arc<str>>> {
            if present & bit == 0 { Ok(None) } else { reader.str().map(|text| Some(text.into())) }
        };
        let correlation = match present & CORRELATION {
            0 => None,
            _ => Some(CorrelationId::from_bytes(reader.array()?)),
        };
        let principal = text(PRINCIPAL, &mut reader)?;
        let schema = text(SCHEMA, &mut reader)?;
        let reply_to =
            if present & REPLY_TO == 0 { None } else { Some(self::subject(&mut reader)?) };
        let key = text(KEY, &mut reader)?;
        let headers = headers(&mut reader)?;
        let data = bytes.slice_ref(reader.bytes()?);
        reader.end()?;
        let message = Message {
            subject,
            data,
            headers,
            correlation,
            principal,
            schema,
            reply_to,
            key,
            priority,
        };
        Ok(Self::new(Stamped { id, unix_ns, tenant, message, is_announcement: false }))
    }
}

fn present(message: &Message) -> u8 {
    let bit = |there: bool, bit: u8| if there { bit } else { 0 };
    bit(message.correlation.is_some(), CORRELATION)
        | bit(message.principal.is_some(), PRINCIPAL)
        | bit(message.schema.is_some(), SCHEMA)
        | bit(message.reply_to.is_some(), REPLY_TO)
        | bit(message.key.is_some(), KEY)
}

fn subject(reader: &mut Reader<'_>) -> Result<Subject> {
    let text = reader.str()?;
    Subject::new(text).map_err(|error| reader.damaged("a subject is none").caused_by(error))
}

fn headers(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>> {
    let count = reader.count(2)?;
    if count > HEADERS_MAX {
        return Err(reader.damaged("too many headers"));
    }
    let mut pair = || Ok((reader.str()?.to_owned(), reader.str()?.to_owned()));
    (0..count).map(|_| pair()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Arc<str>> {
        "\\PC{0,20}".prop_map(Into::into)
    }

    fn about() -> impl Strategy<Value = Subject> {
        "[a-zäß]{1,5}(\\.[a-z]{1,5}){0,3}".prop_map(|text| Subject::new(text).unwrap())
    }

    prop_compose! {
        fn envelopes()(
            subject in about(),
            data in prop::collection::vec(any::<u8>(), 0..100),
            headers in prop::collection::vec(("\\PC{0,9}", "\\PC{0,9}"), 0..5),
            correlation in of(any::<u128>()),
            (principal, schema, key) in (of(text()), of(text()), of(text())),
            reply_to in of(about()),
            (priority, unix_ns, id, tenant) in (any::<u8>(), any::<u64>(), any::<[u8; 16]>(), text()),
        ) -> Envelope {
            let correlation = correlation.map(CorrelationId::from_u128);
            let data = data.into();
            let tenant = Some(tenant).filter(|name| !name.is_empty());
            let message = Message {
                subject, data, headers, correlation, principal, schema, reply_to, key, priority,
            };
            Envelope::new(Stamped { id: MessageId::from_bytes(id), unix_ns, tenant, message, is_announcement: false })
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in envelopes()) {
            let bytes = Bytes::from(envelope.encode());
            prop_assert_eq!(Envelope::decode(&bytes).unwrap(), envelope);
        }

        #[test]
        fn a_piece_of_an_envelope_or_one_with_more_behind_it_is_damaged(
            envelope in envelopes(), cut: prop::sample::Index,
        ) {
            let mut bytes = envelope.encode();
            let piece = Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]);
            prop_assert!(Envelope::decode(&piece).unwrap_err().is(&codes::FORMAT_DAMAGED));
            bytes.push(0);
            prop_assert!(Envelope::decode(&bytes.into()).is_err());
        }

        #[test]
        fn hostile_bytes_are_an_error_or_an_envelope_and_never_a_panic(
            envelope in envelopes(),
            hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = envelope.encode();
            for (at, value) in hits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(envelope) = Envelope::decode(&bytes) {
                let again = Envelope::decode(&envelope.encode().into()).unwrap();
                prop_assert_eq!(again, envelope);
            }
        }
    }

    /// Byte by byte what the table in the module's documentation says.
    fn golden() -> (Envelope, Vec<u8>) {
        let mut message = Message::new(Subject::new("sensors.a").unwrap(), &b"21"[..])
            .header("unit", "C")
            .keyed("k");
        message.correlation = Some(CorrelationId::from_u128(0x0f));
        message.principal = Some("alice".into());
        message.schema = Some("t/1".into());
        message.reply_to = Some(Subject::new("_inbox.1").unwrap());
        message.priority = 7;
        let id = MessageId::from_bytes(*b"\x01\x23\x45\x67\x89\xab\x70\x00\x80\0\0\0\0\0\0\x01");
        let envelope = Envelope::new(Stamped {
            id,
            unix_ns: 0x0102,
            tenant: Some("t".into()),
            message,
            is_announcement: false,
        });
        let fields: [&[u8]; 14] = [
            b"\x00\x1f",
            b"\x01\x23\x45\x67\x89\xab\x70\x00\x80\0\0\0\0\0\0\x01",
            b"\x02\x01\0\0\0\0\0\0",
            b"\x07",
            b"\x01t",
            b"\x09sensors.a",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0f",
            b"\x05alice",
            b"\x03t/1",
            b"\x08_inbox.1",
            b"\x01k",
            b"\x01",
            b"\x04unit\x01C",
            b"\x0221",
        ];
        (envelope, fields.concat())
    }

    #[test]
    fn the_golden_envelope_keeps_its_bytes() {
        let (envelope, bytes) = golden();
        assert_eq!(envelope.encode(), bytes);
        assert_eq!(Envelope::decode(&bytes.into()).unwrap(), envelope);
    }

    #[test]
    fn another_version_and_unknown_fields_are_refused() {
        let (_, mut bytes) = golden();
        bytes[1] |= 0x20;
        assert!(Envelope::decode(&bytes.clone().into()).unwrap_err().is(&codes::FORMAT_DAMAGED));
        bytes[0] = 1;
        assert!(Envelope::decode(&bytes.into()).unwrap_err().is(&codes::FORMAT_NEWER));
    }

    #[test]
    fn data_is_shared_and_not_copied() {
        let bytes = Bytes::from(golden().1);
        let end = bytes.as_ptr_range().end;
        assert_eq!(Envelope::decode(&bytes).unwrap().data().as_ptr_range().end, end);
    }
}
