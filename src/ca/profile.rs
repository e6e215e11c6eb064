//! What a certificate will say, apart from its signature and its timestamp.

use std::time::Duration;

use time::OffsetDateTime;

use crate::ca::extensions::{self, EncodingError};
use crate::ca::request::ProvenKey;
use crate::identity::Identity;
use crate::random::{Random, RandomError};
use crate::x509::spki::SubjectPublicKey;

/// How long a certificate is valid. Fixed: clients and verifiers of the Sigstore world expect ten minutes.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// Why there is no profile for a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProfileError {
    /// Something of the identity cannot be written into a certificate.
    #[error(transparent)]
    Identity(#[from] EncodingError),
    /// No serial number could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Everything that a certificate says but its issuer, its signature and its timestamp.
///
/// Needs a verified [`Identity`] and a [`ProvenKey`]; neither can be made without the proof of it.
#[derive(Debug)]
pub struct CertificateProfile {
    pub(super) serial: [u8; 20],
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    pub(super) public_key: SubjectPublicKey,
    pub(super) subject_alternative_name: Vec<u8>,
    pub(super) sigstore_extensions: Vec<extensions::Extension>,
}

impl CertificateProfile {
    /// Binds `identity` to `key` for ten minutes from `now`, which is cut to whole seconds (RFC 5280, section 4.1.2.5).
    ///
    /// # Errors
    /// When the identity cannot be encoded, or there is no randomness for the serial number.
    pub fn new(
        identity: &Identity,
        key: ProvenKey,
        now: OffsetDateTime,
        random: &dyn Random,
    ) -> Result<Self, ProfileError> {
        let not_before = now.replace_nanosecond(0).unwrap_or(now);
        let subject_alternative_name = extensions::subject_alternative_name(&identity.san)?;
        let sigstore_extensions = extensions::encode(identity)?;
        extensions::check_length(&subject_alternative_name, &sigstore_extensions)?;
        Ok(Self {
            serial: draw_serial(random)?,
            not_before,
            not_after: not_before + LIFETIME,
            public_key: key.into_public_key(),
            subject_alternative_name,
            sigstore_extensions,
        })
    }

    /// The serial number, 20 octets, positive, with at least 158 random bits.
    #[must_use]
    pub const fn serial(&self) -> &[u8; 20] {
        &self.serial
    }
}

/// Draws a serial number: positive and exactly 20 octets long (RFC 5280, section 4.1.2.2), so that all have one length.
pub(super) fn draw_serial(random: &dyn Random) -> Result<[u8; 20], RandomError> {
    let mut serial = [0; 20];
    random.fill(&mut serial)?;
    if let Some(first) = serial.first_mut() {
        // The top bit is the sign; the next one keeps the first octet from being zero.
        *first = *first & 0x7f | 0x40;
    }
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn serial_numbers_are_positive_and_twenty_octets_long() {
        let random = SeededRandom::new(7);
        for _ in 0..1000 {
            let serial = draw_serial(&random).unwrap();
            assert_eq!(serial[0] & 0xc0, 0x40);
        }
    }
}
