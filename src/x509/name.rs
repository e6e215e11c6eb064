//! Names of certificates, for people to read.

use x509_parser::x509::X509Name;

use crate::excerpt::visible;

/// A distinguished name in one line, such as `O=Example, CN=Example CA`. Whoever makes a certificate writes into its names
/// what they like, so what could move a cursor or reorder text is escaped.
#[must_use]
pub fn name_text(name: &X509Name<'_>) -> String {
    visible(&name.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::parse_x509_certificate;

    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_of_whoever_reads_it() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = "Example\u{1b}[2J\n\u{202e}CA";
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (_, parsed) = parse_x509_certificate(certificate.der()).unwrap();
        assert_eq!(
            name_text(parsed.subject()),
            r"CN=Example\u001b[2J\u000a\u202eCA"
        );
    }
}
