//! The few pieces of DER (X.690) that we write and cut ourselves.

/// Universal tag numbers, with the constructed bit where the type is constructed.
pub mod tag {
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING.
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING.
    pub const OCTET_STRING: u8 = 0x04;
    /// NULL.
    pub const NULL: u8 = 0x05;
    /// OBJECT IDENTIFIER.
    pub const OID: u8 = 0x06;
    /// UTF8String.
    pub const UTF8_STRING: u8 = 0x0c;
    /// UTCTime.
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: u8 = 0x30;
}

/// Writes one value: `tag`, the minimal length, and `parts` one after the other.
#[must_use]
pub fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(encoded_len(length));
    put_header(&mut out, tag, length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// The length of a whole value whose content has `length` octets.
#[must_use]
pub const fn encoded_len(length: usize) -> usize {
    let significant_bits = (usize::BITS - length.leading_zeros()) as usize;
    let length_octets = if length < 0x80 {
        1
    } else {
        1 + significant_bits.div_ceil(8)
    };
    1 + length_octets + length
}

/// Appends identifier and minimal length of a value whose content, `length` octets, the caller appends next.
pub fn put_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    if length < 0x80 {
        out.extend(u8::try_from(length));
        return;
    }
    let bytes = length.to_be_bytes();
    let significant = bytes
        .iter()
        .position(|&byte| byte != 0)
        .map_or(&[][..], |first| bytes.get(first..).unwrap_or_default());
    out.extend(u8::try_from(significant.len()).map(|count| 0x80 | count));
    out.extend_from_slice(significant);
}

/// Appends one value with `parts` as its content.
pub fn put(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    put_header(out, tag, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// One value that was read: its tag, its content, and the whole of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Value<'a> {
    /// The identifier octet.
    pub tag: u8,
    /// What lies behind the length.
    pub content: &'a [u8],
    /// Identifier, length and content.
    pub whole: &'a [u8],
}

/// The bytes are not DER where a value was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not valid DER")]
pub struct DerError;

/// Reads the first value of `input` and returns it with what follows.
///
/// Accepts single-octet identifiers and minimal definite lengths of at most three octets; nothing here needs more.
///
/// # Errors
/// When `input` does not begin with such a value.
pub fn read(input: &[u8]) -> Result<(Value<'_>, &[u8]), DerError> {
    let (&tag, rest) = input.split_first().ok_or(DerError)?;
    if tag & 0x1f == 0x1f {
        return Err(DerError);
    }
    let (&first, rest) = rest.split_first().ok_or(DerError)?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (octets, rest) = rest
                .split_at_checked(usize::from(first & 0x7f))
                .ok_or(DerError)?;
            let length = octets
                .iter()
                .fold(0_usize, |sum, &octet| sum << 8 | usize::from(octet));
            // X.690, 10.1: the fewest octets that hold the length.
            let minimal = length >= 0x80 && octets.first() != Some(&0);
            if !minimal {
                return Err(DerError);
            }
            (length, rest)
        }
        _ => return Err(DerError),
    };
    let (content, rest) = rest.split_at_checked(length).ok_or(DerError)?;
    let whole = input.get(..input.len() - rest.len()).ok_or(DerError)?;
    Ok((
        Value {
            tag,
            content,
            whole,
        },
        rest,
    ))
}

/// Reads a value with the given tag; see [`read`].
///
/// # Errors
/// When `input` does not begin with such a value.
pub fn expect(input: &[u8], tag: u8) -> Result<(Value<'_>, &[u8]), DerError> {
    let (value, rest) = read(input)?;
    if value.tag == tag {
        Ok((value, rest))
    } else {
        Err(DerError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_and_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            let encoded = encode(tag::OCTET_STRING, &[&content]);
            assert_eq!(encoded.len(), encoded_len(length));
            let (value, rest) = read(&encoded).unwrap();
            assert_eq!(
                (value.tag, value.content, rest),
                (tag::OCTET_STRING, &content[..], &[][..])
            );
            assert_eq!(value.whole, &encoded[..]);
        }
    }

    #[test]
    fn lengths_that_are_not_minimal_are_refused() {
        for bytes in [
            &[0x04, 0x81, 0x01, 0x00][..],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x80, 0, 0],
            &[0x1f, 0x01, 0],
            &[0x04, 2, 0],
        ] {
            assert_eq!(read(bytes).unwrap_err(), DerError, "{bytes:02x?}");
        }
    }
}
