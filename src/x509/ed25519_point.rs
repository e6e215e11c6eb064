//! Ed25519 points that a signer may stand behind (RFC 8032, section 5.1).

/// Whether the encoding is canonical (RFC 8032, section 5.1.3) and the point is none of the eight of small order, for which
/// everyone knows a signature (Chalkias et al.: "Taming the Many EdDSAs", 2020).
#[must_use]
pub fn is_usable(encoded: &[u8; 32]) -> bool {
    /// The y coordinates of the points of order 8, little endian.
    const ORDER_EIGHT: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *encoded;
    // The sign of x.
    y[31] &= 0x7f;
    let [low, middle @ .., high] = y;
    // 0 has order 4, 1 is the identity.
    let is_zero_or_one = low <= 1 && middle == [0; 30] && high == 0;
    // −1 has order 2; what is beyond it is 2^255 − 19 or more, and not canonical.
    let is_minus_one_or_more = low >= 0xec && middle == [0xff; 30] && high == 0x7f;
    !(is_zero_or_one || is_minus_one_or_more || ORDER_EIGHT.contains(&y))
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    #[test]
    fn points_of_small_order_and_other_encodings_are_not_usable() {
        let prime = (BigUint::from(1_u8) << 255) - 19_u8;
        let little_endian = |number: &BigUint| {
            let mut bytes = [0; 32];
            bytes[..number.to_bytes_le().len()].copy_from_slice(&number.to_bytes_le());
            bytes
        };
        let mut low = vec![
            little_endian(&BigUint::from(0_u8)),
            little_endian(&BigUint::from(1_u8)),
            little_endian(&(&prime - 1_u8)),
        ];
        for octets in [
            b"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            b"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            let octets = BigUint::parse_bytes(octets, 16).unwrap().to_bytes_be();
            low.push(octets.try_into().unwrap());
        }
        for y in &low {
            let dalek = ed25519_dalek::VerifyingKey::from_bytes(y).unwrap();
            assert!(dalek.is_weak(), "the second opinion: {y:02x?}");
        }
        // Not canonical: y from the prime up to 2^255 − 1.
        low.extend((0..19_u8).map(|above| little_endian(&(&prime + above))));
        for y in low {
            for sign in [0, 0x80] {
                let mut point = y;
                point[31] |= sign;
                assert!(!is_usable(&point), "{point:02x?}");
            }
        }
    }

    #[test]
    fn points_of_honest_signers_are_usable() {
        for number in 1..=50 {
            let key = ed25519_dalek::SigningKey::from_bytes(&[number; 32]).verifying_key();
            assert!(!key.is_weak(), "the second opinion: {number}");
            assert!(is_usable(key.as_bytes()), "{number}");
        }
        let mut two = [0; 32];
        two[0] = 2;
        let mut minus_two = [0xff; 32];
        (minus_two[0], minus_two[31]) = (0xeb, 0x7f);
        assert!(
            is_usable(&two) && is_usable(&minus_two),
            "next to the refused ones"
        );
    }
}
