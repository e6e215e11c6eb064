//! Certificates in whatever file a client keeps them: PEM, DER, a Sigstore bundle, a CA's answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Where JSON documents have one certificate: a bundle, and what older clients wrote.
const ONE: [&str; 2] = ["/verificationMaterial/certificate", "/cert"];
/// Where they have several, the leaf first: an older bundle, the answers of a CA, and what `mayfly cert request` prints.
const SEVERAL: [&str; 4] = [
    "/verificationMaterial/x509CertificateChain/certificates",
    "/signedCertificateEmbeddedSct/chain/certificates",
    "/signedCertificateDetachedSct/chain/certificates",
    "/certificates",
];

/// There is no certificate in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "it holds no certificate; a certificate is PEM, DER, a Sigstore bundle, or the JSON answer of a CA"
)]
pub struct NoCertificate;

/// Finds the certificates in the content of a file, DER, in their order.
///
/// # Errors
/// When there is none.
pub fn certificates_in(content: &[u8]) -> Result<Vec<Vec<u8>>, NoCertificate> {
    plain(content)
        // Older releases of cosign write the base64 of PEM.
        .or_else(|| plain(&STANDARD.decode(content.trim_ascii()).ok()?))
        .ok_or(NoCertificate)
}

fn plain(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    if let Ok(document) = serde_json::from_slice::<Value>(content) {
        return in_json(&document).filter(|certificates| !certificates.is_empty());
    }
    if content.first() == Some(&0x30) {
        return Some(vec![content.to_vec()]);
    }
    in_pem(content).filter(|certificates| !certificates.is_empty())
}

fn in_json(document: &Value) -> Option<Vec<Vec<u8>>> {
    if let Some(one) = ONE.iter().find_map(|place| document.pointer(place)) {
        return in_member(one);
    }
    let several = SEVERAL.iter().find_map(|place| document.pointer(place))?;
    let lists: Option<Vec<_>> = several.as_array()?.iter().map(in_member).collect();
    Some(lists?.concat())
}

/// A certificate as a member of JSON: PEM, base64 of PEM or DER, or that under `rawBytes`.
fn in_member(member: &Value) -> Option<Vec<Vec<u8>>> {
    let text = member.get("rawBytes").unwrap_or(member).as_str()?;
    if text.contains("-----BEGIN") {
        return in_pem(text.as_bytes());
    }
    let octets = STANDARD.decode(text).ok()?;
    if octets.first() == Some(&0x30) {
        Some(vec![octets])
    } else {
        in_pem(&octets)
    }
}

fn in_pem(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let blocks = pem::parse_many(text).ok()?;
    let certificates = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents);
    Some(certificates.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::x509::chain::certificate_pem;

    const LEAF: &[u8] = &[0x30, 1, 0];
    const CA: &[u8] = &[0x30, 1, 1];

    #[test]
    fn certificates_are_found_in_every_form_in_which_clients_keep_them() {
        let (leaf, ca) = (certificate_pem(LEAF), certificate_pem(CA));
        let raw = |der: &[u8]| json!({ "rawBytes": STANDARD.encode(der) });
        let key = "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n";
        for (content, expected) in [
            (LEAF.to_vec(), vec![LEAF]),
            (format!("{key}{leaf}\n{ca}\n").into_bytes(), vec![LEAF, CA]),
            (format!("{}\n", STANDARD.encode(&leaf)).into_bytes(), vec![LEAF]),
            (
                json!({ "verificationMaterial": { "certificate": raw(LEAF) } }).to_string().into_bytes(),
                vec![LEAF],
            ),
            (
                json!({ "verificationMaterial": { "x509CertificateChain": { "certificates": [raw(LEAF), raw(CA)] } } })
                    .to_string()
                    .into_bytes(),
                vec![LEAF, CA],
            ),
            (
                json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": [&leaf, &ca] } } })
                    .to_string()
                    .into_bytes(),
                vec![LEAF, CA],
            ),
            (json!({ "cert": STANDARD.encode(&leaf) }).to_string().into_bytes(), vec![LEAF]),
            (json!({ "certificates": [leaf, ca] }).to_string().into_bytes(), vec![LEAF, CA]),
        ] {
            let shown = String::from_utf8_lossy(&content).into_owned();
            assert_eq!(certificates_in(&content).unwrap(), expected, "{shown}");
        }
    }

    #[test]
    fn a_file_without_a_certificate_says_so() {
        for content in [
            "",
            "hello",
            "{}",
            "[]",
            "MAA=x",
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(
                certificates_in(content.as_bytes()),
                Err(NoCertificate),
                "{content}"
            );
        }
    }
}
