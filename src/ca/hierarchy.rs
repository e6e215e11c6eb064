//! A new hierarchy: a self-signed root and the issuing CA below it, for `init` and `dev`.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::ca::profile::draw_serial;
use crate::keys::memory::{InMemoryKey, KeyError, NewKey};
use crate::random::{Random, RandomError};
use crate::x509::chain::{CertificateChain, ChainError};

/// How long a root is valid: ten years.
const ROOT_LIFETIME: Duration = Duration::from_secs(3652 * 86_400);
/// How long an issuing CA is valid: three years.
const ISSUING_LIFETIME: Duration = Duration::from_secs(1096 * 86_400);
/// How far back validity begins, so that clients whose clock is a little behind accept what is new.
const BACKDATE: Duration = Duration::from_secs(300);

/// Why no hierarchy was made.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// Root and issuing CA would have one name, and no verifier could tell which signed.
    #[error("{0:?} is the name of the issuing CA; give the root another common name")]
    SameName(String),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No serial number could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A name cannot stand in a certificate, or the library failed.
    #[error("the CA certificates could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The new certificates are no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// The names in a new hierarchy.
#[derive(Clone, Debug)]
pub struct Names {
    /// O of both certificates.
    pub organization: String,
    /// CN of the root. That of the issuing CA is the organization with ` issuing CA` after it.
    pub common_name: String,
}

/// A new hierarchy with its keys. Every key is PKCS#8 DER, wiped when dropped.
#[derive(Debug)]
pub struct Hierarchy {
    /// Issuing CA, then root.
    pub chain: CertificateChain,
    /// The key that signs certificates: ECDSA P-256.
    pub issuing_key: InMemoryKey,
    /// The same key, to be kept.
    pub issuing_key_pkcs8: Zeroizing<Vec<u8>>,
    /// The root's key, ECDSA P-384: to be kept away from the server.
    pub root_key_pkcs8: Zeroizing<Vec<u8>>,
}

impl Hierarchy {
    /// Makes a P-384 root and a P-256 issuing CA for code signing, valid from a little before `now`.
    ///
    /// # Errors
    /// See [`HierarchyError`].
    pub fn generate(
        names: &Names,
        now: OffsetDateTime,
        random: &dyn Random,
    ) -> Result<Self, HierarchyError> {
        let issuing_name = format!("{} issuing CA", names.organization);
        if issuing_name == names.common_name {
            return Err(HierarchyError::SameName(issuing_name));
        }
        let (_, root_key_pkcs8) = InMemoryKey::generate(NewKey::P384)?;
        let (issuing_key, issuing_key_pkcs8) = InMemoryKey::generate(NewKey::P256)?;
        let not_before = now.replace_nanosecond(0).unwrap_or(now) - BACKDATE;

        let root_key = KeyPair::try_from(root_key_pkcs8.as_slice())?;
        let mut root = ca_params(names, &names.common_name, &root_key, random)?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (root.not_before, root.not_after) = (not_before, not_before + ROOT_LIFETIME);
        let root_certificate: Certificate = root.self_signed(&root_key)?;

        let key = KeyPair::try_from(issuing_key_pkcs8.as_slice())?;
        let mut issuing = ca_params(names, &issuing_name, &key, random)?;
        issuing.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        issuing.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        issuing.use_authority_key_identifier_extension = true;
        (issuing.not_before, issuing.not_after) = (not_before, not_before + ISSUING_LIFETIME);
        let issuing_certificate = issuing.signed_by(&key, &Issuer::new(root, root_key))?;

        let chain = CertificateChain::from_ders(&[
            issuing_certificate.der().to_vec(),
            root_certificate.der().to_vec(),
        ])?;
        Ok(Self {
            chain,
            issuing_key,
            issuing_key_pkcs8,
            root_key_pkcs8,
        })
    }
}

fn ca_params(
    names: &Names,
    common_name: &str,
    key: &KeyPair,
    random: &dyn Random,
) -> Result<CertificateParams, HierarchyError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&draw_serial(random)?));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, names.organization.as_str());
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // RFC 5280, 4.2.1.2 (1). rcgen's own methods hash the whole SubjectPublicKeyInfo.
    let identifier = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.der_bytes());
    params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.as_ref().to_vec());
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, FixedClock};
    use crate::random::SeededRandom;

    #[test]
    fn a_new_hierarchy_is_a_chain_with_names_and_identifiers() {
        let now = FixedClock::at("2026-01-02T03:04:05Z").now();
        let names = Names {
            organization: "Example".to_owned(),
            common_name: "Example root".to_owned(),
        };

        let hierarchy = Hierarchy::generate(&names, now, &SeededRandom::new(1)).unwrap();

        let [issuing, root] = hierarchy.chain.certificates() else {
            panic!("not two certificates")
        };
        assert_eq!(issuing.common_name(), Some("Example issuing CA"));
        assert_eq!(
            (root.common_name(), root.organization()),
            (Some("Example root"), Some("Example"))
        );
        assert!(
            issuing
                .subject_key_identifier()
                .is_some_and(|identifier| identifier.len() == 20)
        );
        hierarchy.chain.check_validity(now).unwrap();
        assert!(
            hierarchy
                .chain
                .check_validity(now + ISSUING_LIFETIME)
                .is_err()
        );
    }

    #[test]
    fn root_and_issuing_ca_never_have_one_name() {
        let names = Names {
            organization: "Example".to_owned(),
            common_name: "Example issuing CA".to_owned(),
        };
        let now = FixedClock::at("2026-01-02T03:04:05Z").now();

        let error = Hierarchy::generate(&names, now, &SeededRandom::new(1)).unwrap_err();

        assert!(matches!(error, HierarchyError::SameName(_)), "{error}");
    }
}
