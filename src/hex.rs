//! Octets as hexadecimal digits, as names, digests and log lines have them.

/// The octets as lower-case digits, two each (RFC 4648, section 8).
#[must_use]
pub fn hex(octets: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    octets
        .iter()
        .flat_map(|octet| [digit(octet >> 4), digit(octet & 0xf)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_has_two_digits() {
        assert_eq!(hex(&[]), "");
        assert_eq!(hex(&[0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }
}
