//! Whose TLS certificates a server may show.

use std::fmt;

use reqwest::Certificate;
use x509_parser::parse_x509_certificate;

/// Certificates of authorities that are trusted for some server; with those of the system, or in their place.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct TlsRoots(Vec<Vec<u8>>);

impl TlsRoots {
    /// Reads one or more certificates in PEM.
    ///
    /// # Errors
    /// When the text is not PEM, holds anything but certificates, or none.
    pub fn parse(pem_text: &str) -> Result<Self, InvalidRoots> {
        let blocks = pem::parse_many(pem_text).map_err(|_| InvalidRoots)?;
        let is_certificate = |block: &pem::Pem| {
            block.tag() == "CERTIFICATE"
                && parse_x509_certificate(block.contents()).is_ok_and(|(rest, _)| rest.is_empty())
        };
        if blocks.is_empty() || !blocks.iter().all(is_certificate) {
            return Err(InvalidRoots);
        }
        Ok(Self(
            blocks.into_iter().map(pem::Pem::into_contents).collect(),
        ))
    }

    /// The certificates, DER; never none.
    #[must_use]
    pub fn ders(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// The certificates as a client over HTTP takes them.
    ///
    /// # Errors
    /// When the client's library does not take one of them.
    pub fn certificates(&self) -> reqwest::Result<Vec<Certificate>> {
        self.0
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect()
    }
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsRoots({} certificates)", self.0.len())
    }
}

/// A text is not a list of certificates in PEM.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not one or more PEM blocks of type CERTIFICATE")]
pub struct InvalidRoots;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates_in_pem() {
        let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let pem = certificate.cert.pem();
        let roots = TlsRoots::parse(&format!("{pem}{pem}")).unwrap();
        assert_eq!(roots.ders().len(), 2);
        assert_eq!(roots.certificates().unwrap().len(), 2);
        let cut = pem::encode(&pem::Pem::new("CERTIFICATE", &certificate.cert.der()[..99]));
        for text in [
            "",
            "text",
            &certificate.signing_key.serialize_pem(),
            &cut,
            &format!("{pem}{cut}"),
        ] {
            assert_eq!(TlsRoots::parse(text).unwrap_err(), InvalidRoots);
        }
    }
}
