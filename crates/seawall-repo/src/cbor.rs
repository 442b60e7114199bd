//! Deterministic CBOR for metadata, and the field codecs the derived structs share.

use minicbor::{Decode, Encode};

use crate::Damage;

/// Encodes a value. Writing to memory cannot fail, and no type here refuses to be encoded.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoded = minicbor::encode(value, &mut bytes);
    debug_assert!(encoded.is_ok(), "encoding to memory failed: {encoded:?}");
    bytes
}

/// Encodes a value and proves that it is read again.
pub(crate) fn encode_readable<T>(value: &T, what: &str) -> seawall_core::Result<Vec<u8>>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let bytes = encode(value);
    decode::<T>(&bytes).map_err(|damage| crate::error::unreadable(what, &damage))?;
    Ok(bytes)
}

/// Encodes a value that is told in a context, to the end of `out`.
pub(crate) fn encode_in<C, T: Encode<C>>(value: &T, context: &mut C, out: &mut Vec<u8>) {
    let encoded = minicbor::encode_with(value, &mut *out, context);
    debug_assert!(encoded.is_ok(), "encoding to memory failed: {encoded:?}");
}

/// Appends the head of an array of `count` values, which the caller appends.
pub(crate) fn array_head(count: u32, out: &mut Vec<u8>) {
    let encoded = minicbor::Encoder::new(out).array(u64::from(count)).map(|_| ());
    debug_assert!(encoded.is_ok(), "encoding to memory failed: {encoded:?}");
}

/// How many bytes the head of a length, a count or an unsigned integer takes (RFC 8949, 3).
pub(crate) const fn head_bytes(value: u64) -> u64 {
    match value {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Decodes a value that fills `bytes` exactly.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Damage> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| Damage::Content(error.to_string()))?;
    if decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(Damage::Content("bytes follow the value".to_owned()))
    }
}

macro_rules! number_codec {
    ($name:ident, $type:ty, $raw:ident) => {
        pub(crate) mod $name {
            use minicbor::decode::{Decoder, Error};
            use minicbor::encode::{self, Encoder, Write};

            pub(crate) fn encode<C, W: Write>(
                value: &$type,
                encoder: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                encoder.$raw(value.0)?;
                Ok(())
            }

            pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<$type, Error> {
                decoder.$raw().map(super::make::$name)
            }
        }
    };
}

mod make {
    use seawall_core::{BranchNumber, Lsn, SystemId, TimelineId};

    pub(super) fn lsn(raw: u64) -> Lsn {
        Lsn(raw)
    }
    pub(super) fn timeline(raw: u32) -> TimelineId {
        TimelineId(raw)
    }
    pub(super) fn system_id(raw: u64) -> SystemId {
        SystemId(raw)
    }
    pub(super) fn branch(raw: u32) -> BranchNumber {
        BranchNumber(raw)
    }
}

number_codec!(lsn, seawall_core::Lsn, u64);
number_codec!(timeline, seawall_core::TimelineId, u32);
number_codec!(system_id, seawall_core::SystemId, u64);
number_codec!(branch, seawall_core::BranchNumber, u32);

/// A ULID as 16 bytes, big-endian.
pub(crate) mod ulid {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};
    use seawall_core::Ulid;

    pub(crate) fn encode<C, W: Write>(
        value: &Ulid,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        encoder.bytes(&value.0.to_be_bytes())?;
        Ok(())
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Ulid, Error> {
        let bytes = decoder.bytes()?;
        let array =
            <[u8; 16]>::try_from(bytes).map_err(|_| Error::message("a ULID has 16 bytes"))?;
        Ok(Ulid(u128::from_be_bytes(array)))
    }
}

/// What PostgreSQL's users wrote: text if it is UTF-8, else a byte string.
pub(crate) mod text_or_bytes {
    use minicbor::data::Type;
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(crate) fn encode<C, W: Write>(
        value: &[u8],
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match std::str::from_utf8(value) {
            Ok(text) => encoder.str(text)?,
            Err(_) => encoder.bytes(value)?,
        };
        Ok(())
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<Vec<u8>, Error> {
        match decoder.datatype()? {
            Type::Bytes => decoder.bytes().map(<[u8]>::to_vec),
            _ => decoder.str().map(|text| text.as_bytes().to_vec()),
        }
    }
}

/// A list of ULIDs.
pub(crate) mod ulids {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};
    use seawall_core::Ulid;

    pub(crate) fn encode<C, W: Write>(
        values: &[Ulid],
        encoder: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        encoder.array(values.len() as u64)?;
        values.iter().try_for_each(|value| super::ulid::encode(value, encoder, ctx))
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, ctx: &mut C) -> Result<Vec<Ulid>, Error> {
        let count = decoder.array()?.ok_or_else(|| Error::message("indefinite array"))?;
        (0..count).map(|_| super::ulid::decode(decoder, ctx)).collect()
    }
}

/// An optional ULID.
pub(crate) mod optional_ulid {
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};
    use seawall_core::Ulid;

    pub(crate) fn encode<C, W: Write>(
        value: &Option<Ulid>,
        encoder: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        match value {
            Some(value) => super::ulid::encode(value, encoder, ctx),
            None => encoder.null().map(|_| ()),
        }
    }

    pub(crate) fn decode<C>(decoder: &mut Decoder<'_>, ctx: &mut C) -> Result<Option<Ulid>, Error> {
        super::ulid::decode(decoder, ctx).map(Some)
    }

    pub(crate) fn nil() -> Option<Option<Ulid>> {
        Some(None)
    }

    pub(crate) fn is_nil(value: &Option<Ulid>) -> bool {
        value.is_none()
    }
}
