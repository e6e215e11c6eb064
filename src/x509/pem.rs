//! PEM as clients send it: the first block of a text.
//!
//! Looser than RFC 7468 where real clients need it: any text around the block, CRLF or LF, base64 in lines of any length,
//! no newline at the end. Header lines (RFC 1421) are refused, as nothing that we read has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Why a text holds no PEM block that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PemError {
    /// There is no `-----BEGIN …-----` line.
    #[error("there is no PEM block (a line `-----BEGIN …-----`)")]
    NoBlock,
    /// The first block has no line that ends it, or one with another label.
    #[error("the PEM block does not end with the `-----END …-----` line of its label")]
    Unterminated,
    /// The block has header lines.
    #[error("the PEM block has header lines, which are not accepted")]
    Headers,
    /// The block's content is not padded standard base64.
    #[error("the PEM block's content is not base64")]
    Base64,
}

/// The first PEM block of a text, its content not yet decoded.
#[derive(Clone, Copy)]
pub struct PemBlock<'a> {
    label: &'a str,
    base64: &'a [u8],
}

impl<'a> PemBlock<'a> {
    /// Finds the first block of `text`.
    ///
    /// # Errors
    /// When there is none, or it does not end.
    pub fn first(text: &'a [u8]) -> Result<Self, PemError> {
        let (_, text) = split_at(text, BEGIN).ok_or(PemError::NoBlock)?;
        let (label, text) = split_at(text, DASHES).ok_or(PemError::NoBlock)?;
        let label = std::str::from_utf8(label)
            .ok()
            .filter(|label| {
                label
                    .bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            })
            .ok_or(PemError::NoBlock)?;
        let (base64, text) = split_at(text, END).ok_or(PemError::Unterminated)?;
        let (end_label, _) = split_at(text, DASHES).ok_or(PemError::Unterminated)?;
        if end_label != label.as_bytes() {
            return Err(PemError::Unterminated);
        }
        Ok(Self { label, base64 })
    }

    /// The label, such as `PUBLIC KEY`. Printable ASCII, but whatever the client wrote.
    #[must_use]
    pub const fn label(&self) -> &'a str {
        self.label
    }

    /// Whether the label is that of a private key, in any of its forms.
    #[must_use]
    pub fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// Returns the content.
    ///
    /// # Errors
    /// When it is not base64, or has headers in front.
    pub fn decode(&self) -> Result<Vec<u8>, PemError> {
        if self.base64.contains(&b':') {
            return Err(PemError::Headers);
        }
        let digits: Vec<u8> = self
            .base64
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        STANDARD.decode(digits).map_err(|_| PemError::Base64)
    }
}

/// Cuts `text` around the first `marker`.
fn split_at<'a>(text: &'a [u8], marker: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = text
        .windows(marker.len())
        .position(|window| window == marker)?;
    Some((text.get(..start)?, text.get(start + marker.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, Vec<u8>), PemError> {
        let block = PemBlock::first(text.as_bytes())?;
        Ok((block.label().to_owned(), block.decode()?))
    }

    #[test]
    fn the_first_block_is_read_whatever_stands_around_it() {
        for text in [
            "-----BEGIN A KEY-----\nAQID\n-----END A KEY-----\n",
            "-----BEGIN A KEY-----\r\nAQ\r\nID\r\n-----END A KEY-----\r\n",
            "-----BEGIN A KEY-----\nAQID\n-----END A KEY-----",
            "-----BEGIN A KEY-----AQID-----END A KEY-----",
            "subject: me\n\n  -----BEGIN A KEY-----\n\n\tAQ ID\n\n-----END A KEY-----\ntrailing",
            "-----BEGIN A KEY-----\nAQID\n-----END A KEY-----\n-----BEGIN B-----\n!\n-----END B-----",
        ] {
            assert_eq!(
                read(text),
                Ok(("A KEY".to_owned(), vec![1, 2, 3])),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_block_is_refused_with_its_reason() {
        for (text, error) in [
            ("", PemError::NoBlock),
            ("AQID", PemError::NoBlock),
            ("-----BEGIN A", PemError::NoBlock),
            (
                "-----BEGIN A\nB-----\nAQID\n-----END A\nB-----",
                PemError::NoBlock,
            ),
            ("-----BEGIN A-----\nAQID", PemError::Unterminated),
            (
                "-----BEGIN A-----\nAQID\n-----END A",
                PemError::Unterminated,
            ),
            (
                "-----BEGIN A-----\nAQID\n-----END B-----",
                PemError::Unterminated,
            ),
            (
                "-----BEGIN A-----\nX: y\n\nAQID\n-----END A-----",
                PemError::Headers,
            ),
            ("-----BEGIN A-----\nAQI\n-----END A-----", PemError::Base64),
            ("-----BEGIN A-----\nAQ-_\n-----END A-----", PemError::Base64),
            (
                "-----BEGIN A-----\n-----BEGIN A-----\nAQID\n-----END A-----",
                PemError::Base64,
            ),
        ] {
            assert_eq!(read(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_private_key_is_known_by_its_label() {
        for (label, is_private) in [
            ("PRIVATE KEY", true),
            ("RSA PRIVATE KEY", true),
            ("EC PRIVATE KEY", true),
            ("ENCRYPTED PRIVATE KEY", true),
            ("OPENSSH PRIVATE KEY", true),
            ("PUBLIC KEY", false),
        ] {
            let text = format!("-----BEGIN {label}-----\n-----END {label}-----");
            assert_eq!(
                PemBlock::first(text.as_bytes()).unwrap().is_private_key(),
                is_private,
                "{label}"
            );
        }
    }
}
