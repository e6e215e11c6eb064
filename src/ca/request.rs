//! What a client asks for: an ID token, and a key with the proof that the client holds it.
//!
//! [`ProofOfPossession::check`] is the only way to a [`ProvenKey`], and so the only way a key gets into a certificate.

use std::fmt;

use zeroize::Zeroizing;

use crate::excerpt::Excerpt;
use crate::identity::Identity;
use crate::reason::Reason;
use crate::x509::algorithm::{Hash, KeyKind, SignatureScheme};
use crate::x509::csr::{CertificateRequest, CsrError};
use crate::x509::spki::{KeyError, SubjectPublicKey};

/// The longest signature that is looked at, in octets. An RSA-4096 signature has 512.
pub const MAX_SIGNATURE_BYTES: usize = 2 * 1024;

/// A request for a certificate, of which nothing has been checked yet.
#[derive(Debug)]
pub struct SigningRequest {
    /// Who is asking, by the word of an issuer.
    pub token: IdToken,
    /// The key to certify, and the proof that the client holds it.
    pub proof: ProofOfPossession,
}

/// An unverified ID token in compact form (RFC 7519). Whoever has it can pass for its subject, so it is never shown.
pub struct IdToken(Zeroizing<String>);

impl IdToken {
    /// Takes a token without white space around it.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }

    /// The token, for the one who verifies it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken([redacted])")
    }
}

/// In which forms a request may carry its public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyEncoding {
    /// PEM alone: the second version of the interface, and gRPC.
    Pem,
    /// PEM or DER: the first version of the interface.
    PemOrDer,
}

/// A client's key with the proof that the client holds its private half, not yet checked.
///
/// Both forms wipe what was sent in place of a key when they are dropped: it may be a private key, sent by mistake.
pub enum ProofOfPossession {
    /// A public key, and a signature by it over the identity's challenge.
    Challenge {
        /// The public key as it was sent. Empty when none was.
        public_key: Zeroizing<Vec<u8>>,
        /// In which forms that may be.
        encoding: KeyEncoding,
        /// The signature: ECDSA as DER or IEEE P1363, RSA and Ed25519 as their octets.
        signature: Vec<u8>,
    },
    /// A certificate signing request (PKCS #10): a key that signs itself.
    CertificateRequest {
        /// The PEM text.
        pem: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for ProofOfPossession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofOfPossession({}, [redacted])", self.label())
    }
}

impl ProofOfPossession {
    /// Which form it has, as metrics name it: `challenge` or `csr`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Challenge { .. } => "challenge",
            Self::CertificateRequest { .. } => "csr",
        }
    }

    /// Checks that the key is well formed and strong, that the client holds its private half, and that its algorithm is
    /// permitted: in that order, which is Fulcio's.
    ///
    /// A certificate signing request proves that someone who holds the key made it, not that `identity` did.
    ///
    /// # Errors
    /// The first of these that does not hold; always the client's fault.
    pub fn check(
        &self,
        identity: &Identity,
        permitted: &PermittedAlgorithms,
    ) -> Result<ProvenKey, ProofError> {
        let (key, scheme) = match self {
            Self::Challenge {
                public_key,
                encoding,
                signature,
            } => {
                let key = match encoding {
                    _ if public_key.is_empty() => return Err(KeyError::Missing.into()),
                    KeyEncoding::Pem => SubjectPublicKey::from_pem(public_key)?,
                    KeyEncoding::PemOrDer => SubjectPublicKey::from_pem_or_der(public_key)?,
                };
                check_challenge(&key, identity, signature)?;
                let scheme = key.kind().proof_scheme();
                (key, scheme)
            }
            Self::CertificateRequest { pem } => CertificateRequest::from_pem(pem)?.verify()?,
        };
        // After the proof, as only a requester who holds the key is an alarm.
        if permitted.reserves(&key) {
            return Err(ProofError::ReservedKey);
        }
        if !permitted.permits(key.kind(), scheme) {
            return Err(ProofError::NotPermitted {
                kind: key.kind(),
                scheme,
            });
        }
        Ok(ProvenKey(key))
    }
}

/// Verifies the signature of a [`ProofOfPossession::Challenge`].
fn check_challenge(
    key: &SubjectPublicKey,
    identity: &Identity,
    signature: &[u8],
) -> Result<(), ProofError> {
    let fault = match signature.len() {
        0 => ChallengeFault::Missing,
        1..=MAX_SIGNATURE_BYTES => {
            match key.verify_proof(identity.challenge.as_bytes(), signature) {
                Ok(()) => return Ok(()),
                Err(_) => ChallengeFault::Signature,
            }
        }
        _ => ChallengeFault::TooLong,
    };
    Err(ProofError::Challenge {
        fault,
        claim: identity.challenge_claim,
        challenge: Excerpt::new(&identity.challenge),
        kind: key.kind(),
    })
}

/// A public key whose private half the requester was seen to hold.
///
/// Made by [`ProofOfPossession::check`] only, so a certificate cannot be built for an unproven key.
#[derive(Clone, Debug)]
pub struct ProvenKey(SubjectPublicKey);

impl ProvenKey {
    /// The key.
    #[must_use]
    pub const fn public_key(&self) -> &SubjectPublicKey {
        &self.0
    }

    /// Gives the key away.
    #[must_use]
    pub fn into_public_key(self) -> SubjectPublicKey {
        self.0
    }

    /// The kind of key as metrics name it, such as `p256`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.0.kind().label()
    }
}

/// The algorithms that clients may use: what `--client-signing-algorithms` lists. Keys of the server's own are kept from
/// them whatever their algorithm.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PermittedAlgorithms {
    pairs: Vec<(KeyKind, SignatureScheme)>,
    reserved_keys: Vec<Vec<u8>>,
}

/// An algorithm list holds a name that is none. The text is Fulcio's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("could not find matching signature algorithm for flag: {0}")]
pub struct UnknownAlgorithm(pub String);

impl PermittedAlgorithms {
    /// What is permitted when nothing is configured: every kind of key with its own hash.
    pub const DEFAULT: &str = "ecdsa-sha2-256-nistp256,ecdsa-sha2-384-nistp384,ecdsa-sha2-512-nistp521,\
         rsa-sign-pkcs1-2048-sha256,rsa-sign-pkcs1-3072-sha256,rsa-sign-pkcs1-4096-sha256,ed25519";

    /// Reads a list of names with commas between them.
    ///
    /// A name stands for a kind of key and a hash. The `pss` names therefore permit PKCS#1 v1.5 signatures, as Fulcio has
    /// it; `ecdsa-sha2-256-nistp384` and `…-nistp521` are met by certificate signing requests alone, and `ed25519-ph` by
    /// nothing.
    ///
    /// # Errors
    /// When a name is unknown, also when it is empty.
    pub fn parse(list: &str) -> Result<Self, UnknownAlgorithm> {
        let mut pairs = Vec::new();
        for name in list.split(',').map(str::trim) {
            let row = ALGORITHM_NAMES.iter().find(|(known, _)| *known == name);
            let (_, pair) = row.ok_or_else(|| UnknownAlgorithm(name.to_owned()))?;
            pairs.extend(*pair);
        }
        Ok(Self {
            pairs,
            reserved_keys: Vec::new(),
        })
    }

    /// Whether signatures by `scheme` with a key of `kind` are permitted.
    #[must_use]
    pub fn permits(&self, kind: KeyKind, scheme: SignatureScheme) -> bool {
        self.pairs.contains(&(kind, scheme))
    }

    /// Refuses these keys, each a DER SubjectPublicKeyInfo: those of the server's authorities and logs.
    #[must_use]
    pub fn reserving(mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.reserved_keys.extend(keys);
        self
    }

    fn reserves(&self, key: &SubjectPublicKey) -> bool {
        self.reserved_keys
            .iter()
            .any(|reserved| reserved == key.spki_der())
    }
}

impl Default for PermittedAlgorithms {
    /// What [`Self::DEFAULT`] says.
    fn default() -> Self {
        let pairs = KeyKind::ALL.map(|kind| (kind, kind.proof_scheme())).into();
        Self {
            pairs,
            reserved_keys: Vec::new(),
        }
    }
}

/// The names that a list may hold, with what each permits.
const ALGORITHM_NAMES: [(&str, Option<(KeyKind, SignatureScheme)>); 13] = {
    use Hash::{Sha256, Sha384, Sha512};
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521, Rsa2048, Rsa3072, Rsa4096};
    use SignatureScheme::{Ecdsa, RsaPkcs1};
    [
        (
            "rsa-sign-pkcs1-2048-sha256",
            Some((Rsa2048, RsaPkcs1(Sha256))),
        ),
        (
            "rsa-sign-pkcs1-3072-sha256",
            Some((Rsa3072, RsaPkcs1(Sha256))),
        ),
        (
            "rsa-sign-pkcs1-4096-sha256",
            Some((Rsa4096, RsaPkcs1(Sha256))),
        ),
        (
            "rsa-sign-pss-2048-sha256",
            Some((Rsa2048, RsaPkcs1(Sha256))),
        ),
        (
            "rsa-sign-pss-3072-sha256",
            Some((Rsa3072, RsaPkcs1(Sha256))),
        ),
        (
            "rsa-sign-pss-4096-sha256",
            Some((Rsa4096, RsaPkcs1(Sha256))),
        ),
        ("ecdsa-sha2-256-nistp256", Some((EcdsaP256, Ecdsa(Sha256)))),
        ("ecdsa-sha2-384-nistp384", Some((EcdsaP384, Ecdsa(Sha384)))),
        ("ecdsa-sha2-256-nistp384", Some((EcdsaP384, Ecdsa(Sha256)))),
        ("ecdsa-sha2-512-nistp521", Some((EcdsaP521, Ecdsa(Sha512)))),
        ("ecdsa-sha2-256-nistp521", Some((EcdsaP521, Ecdsa(Sha256)))),
        (
            "ed25519",
            Some((KeyKind::Ed25519, SignatureScheme::Ed25519)),
        ),
        ("ed25519-ph", None),
    ]
};

/// Why a key was not accepted as the requester's. The client's fault, always.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProofError {
    /// The public key is malformed, weak, or of a kind that is not certified.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate signing request is malformed, its key weak, or its signature bad.
    #[error(transparent)]
    CertificateRequest(#[from] CsrError),
    /// The signature over the challenge does not verify.
    #[error(
        "{fault} the signature must be over the token's `{claim}` claim ({challenge}) with {}",
        ExpectedScheme(*kind)
    )]
    Challenge {
        /// What is wrong with it.
        fault: ChallengeFault,
        /// The claim that must be signed.
        claim: &'static str,
        /// The claim's value.
        challenge: Excerpt,
        /// The kind of key, which tells how.
        kind: KeyKind,
    },
    /// The proof holds, and the key is one of the server's own: someone else has it, so it must be replaced.
    #[error("the key belongs to this server itself")]
    ReservedKey,
    /// The proof holds, but this server's list of algorithms lacks its algorithm.
    #[error("this server is not configured to accept {kind} keys{}", with_hash(*scheme))]
    NotPermitted {
        /// The kind of key.
        kind: KeyKind,
        /// The scheme of its signature.
        scheme: SignatureScheme,
    },
}

/// What is wrong with the signature over a challenge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChallengeFault {
    /// None was sent.
    Missing,
    /// It is longer than [`MAX_SIGNATURE_BYTES`].
    TooLong,
    /// It does not verify.
    Signature,
}

impl fmt::Display for ChallengeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no proof of possession was sent;"),
            Self::TooLong => {
                write!(
                    f,
                    "the proof of possession is longer than {MAX_SIGNATURE_BYTES} bytes;"
                )
            }
            Self::Signature => f.write_str("the proof of possession does not verify;"),
        }
    }
}

/// The scheme of a proof, for people: `ECDSA P-384 and SHA-384`.
struct ExpectedScheme(KeyKind);

impl fmt::Display for ExpectedScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.proof_scheme() {
            SignatureScheme::Ecdsa(hash) => write!(f, "{} and {}", self.0, hash.name()),
            SignatureScheme::RsaPkcs1(hash) => write!(f, "RSA PKCS#1 v1.5 and {}", hash.name()),
            SignatureScheme::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

fn with_hash(scheme: SignatureScheme) -> String {
    scheme
        .hash()
        .map_or_else(String::new, |hash| format!(" with {}", hash.name()))
}

impl ProofError {
    /// The code that stands for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Key(error) => error.reason(),
            Self::CertificateRequest(error) => error.reason(),
            Self::Challenge { .. } => Reason::BadProof,
            Self::ReservedKey => Reason::WeakKey,
            Self::NotPermitted { .. } => Reason::AlgorithmNotPermitted,
        }
    }

    /// The stage of Fulcio's checks at which it belongs.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::Key(error) if error.is_insecure() => Stage::KeyStrength,
            Self::Key(_) => Stage::PublicKey,
            Self::ReservedKey => Stage::KeyStrength,
            Self::CertificateRequest(error) => match error {
                CsrError::Key(error) if error.is_insecure() => Stage::KeyStrength,
                CsrError::TooLarge
                | CsrError::Der
                | CsrError::Pem(_)
                | CsrError::Label
                | CsrError::PrivateKey
                | CsrError::Malformed(_)
                | CsrError::Key(_) => Stage::CertificateRequest,
                CsrError::Signature | CsrError::Algorithm(_) => Stage::Signature,
                CsrError::Pss(name) => Stage::UnrecognizedAlgorithm(name),
            },
            Self::Challenge { .. } => Stage::Signature,
            Self::NotPermitted { kind, scheme } => Stage::AlgorithmNotPermitted {
                kind: *kind,
                scheme: *scheme,
            },
        }
    }
}

/// A stage of Fulcio's checks of key and proof. Its `Display` is the text that Fulcio's clients know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Reading the public key.
    PublicKey,
    /// Reading the certificate signing request.
    CertificateRequest,
    /// Whether the key is strong enough.
    KeyStrength,
    /// Verifying the proof, or the certificate signing request's own signature.
    Signature,
    /// Naming the certificate signing request's signature algorithm; its name.
    UnrecognizedAlgorithm(&'static str),
    /// Whether the algorithm is permitted.
    AlgorithmNotPermitted {
        /// The kind of key.
        kind: KeyKind,
        /// The scheme of its signature.
        scheme: SignatureScheme,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicKey => {
                f.write_str("The public key supplied in the request could not be parsed")
            }
            Self::CertificateRequest => {
                f.write_str("The certificate signing request could not be parsed")
            }
            Self::KeyStrength => f.write_str("The public key supplied in the request is insecure"),
            Self::Signature => {
                f.write_str("The signature supplied in the request could not be verified")
            }
            Self::UnrecognizedAlgorithm(name) => {
                write!(f, "unrecognized signature algorithm: {name}")
            }
            Self::AlgorithmNotPermitted { kind, scheme } => {
                let key = match kind {
                    KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                        "*ecdsa.PublicKey"
                    }
                    KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => "*rsa.PublicKey",
                    KeyKind::Ed25519 => "ed25519.PublicKey",
                };
                let hash = scheme.hash().map_or("unknown hash value 0", Hash::name);
                write!(f, "signing algorithm not permitted: {key}, {hash}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{BuildFacts, San};
    use crate::x509::test_key::{
        TestKey, algorithm_identifier, elliptic_spki, pem, rsa_spki, spki,
    };

    const EMAIL: &str = "alice@example.com";

    fn identity() -> Identity {
        Identity {
            issuer_id: "test".into(),
            issuer_type: "email",
            issuer: "https://id.example".to_owned(),
            subject: "4711".to_owned(),
            challenge_claim: "email",
            challenge: EMAIL.to_owned(),
            san: San::Email(EMAIL.to_owned()),
            build: BuildFacts::default(),
            rate: None,
        }
    }

    fn challenge(public_key: impl Into<Vec<u8>>, signature: Vec<u8>) -> ProofOfPossession {
        ProofOfPossession::Challenge {
            public_key: Zeroizing::new(public_key.into()),
            encoding: KeyEncoding::Pem,
            signature,
        }
    }

    fn request(pem: String) -> ProofOfPossession {
        ProofOfPossession::CertificateRequest {
            pem: Zeroizing::new(pem.into_bytes()),
        }
    }

    fn check(proof: &ProofOfPossession) -> Result<ProvenKey, ProofError> {
        proof.check(&identity(), &PermittedAlgorithms::default())
    }

    /// Fulcio's text for the stage, the specific text, and the reason.
    fn refusal(proof: &ProofOfPossession) -> (String, String, Reason) {
        let error = check(proof).unwrap_err();
        (error.stage().to_string(), error.to_string(), error.reason())
    }

    const BAD_KEY: &str = "The public key supplied in the request could not be parsed";
    const BAD_REQUEST: &str = "The certificate signing request could not be parsed";
    const INSECURE: &str = "The public key supplied in the request is insecure";
    const BAD_SIGNATURE: &str = "The signature supplied in the request could not be verified";

    #[test]
    fn every_kind_of_key_can_be_proven_by_challenge_and_by_request() {
        for kind in KeyKind::ALL {
            let key = TestKey::new(kind);
            for proof in [
                challenge(key.pem(), key.prove(EMAIL)),
                request(key.csr(kind.proof_scheme())),
            ] {
                let proven = check(&proof).unwrap();
                assert_eq!(proven.public_key().spki_der(), key.spki_der());
                assert_eq!(proven.label(), kind.label());
            }
        }
    }

    #[test]
    fn der_keys_are_accepted_where_the_interface_has_them() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        for public_key in [key.pem().into_bytes(), key.spki_der().to_vec()] {
            let proof = ProofOfPossession::Challenge {
                public_key: Zeroizing::new(public_key),
                encoding: KeyEncoding::PemOrDer,
                signature: key.prove(EMAIL),
            };
            assert_eq!(
                check(&proof).unwrap().public_key().spki_der(),
                key.spki_der()
            );
        }
        let (stage, _, reason) = refusal(&challenge(key.spki_der(), key.prove(EMAIL)));
        assert_eq!(
            (stage.as_str(), reason),
            (BAD_KEY, Reason::MalformedPublicKey)
        );
    }

    #[test]
    fn a_bad_proof_is_refused_with_what_it_should_have_been() {
        let key = TestKey::new(KeyKind::EcdsaP384);
        let sha256 = SignatureScheme::Ecdsa(Hash::Sha256);
        let expected = "the signature must be over the token's `email` claim (\"alice@example.com\") \
                        with ECDSA P-384 and SHA-384";
        for (what, signature, fault) in [
            (
                "the subject",
                key.prove("4711"),
                "the proof of possession does not verify",
            ),
            (
                "a line",
                key.prove("alice@example.com\n"),
                "the proof of possession does not verify",
            ),
            (
                "upper case",
                key.prove("ALICE@EXAMPLE.COM"),
                "the proof of possession does not verify",
            ),
            (
                "another hash",
                key.sign(sha256, EMAIL.as_bytes()),
                "the proof of possession does not verify",
            ),
            (
                "another key",
                TestKey::numbered(KeyKind::EcdsaP384, 2).prove(EMAIL),
                "the proof of possession does not verify",
            ),
            ("nothing", Vec::new(), "no proof of possession was sent"),
            (
                "too much",
                vec![0; 2049],
                "the proof of possession is longer than 2048 bytes",
            ),
        ] {
            let (stage, text, reason) = refusal(&challenge(key.pem(), signature));
            assert_eq!(
                (stage.as_str(), reason),
                (BAD_SIGNATURE, Reason::BadProof),
                "{what}"
            );
            assert_eq!(text, format!("{fault}; {expected}"), "{what}");
        }
    }

    #[test]
    fn the_expected_scheme_is_named_for_each_kind_of_key() {
        for (kind, expected) in [
            (KeyKind::EcdsaP256, "with ECDSA P-256 and SHA-256"),
            (KeyKind::EcdsaP521, "with ECDSA P-521 and SHA-512"),
            (KeyKind::Rsa2048, "with RSA PKCS#1 v1.5 and SHA-256"),
            (KeyKind::Ed25519, "with Ed25519"),
        ] {
            let (_, text, _) = refusal(&challenge(TestKey::new(kind).pem(), vec![0]));
            assert!(text.ends_with(expected), "{text}");
        }
    }

    #[test]
    fn the_challenge_is_shown_cut_and_escaped() {
        let mut identity = identity();
        identity.challenge = format!("a\n\u{202e}{}", "b".repeat(300));
        let proof = challenge(TestKey::new(KeyKind::EcdsaP256).pem(), vec![0]);
        let error = proof
            .check(&identity, &PermittedAlgorithms::default())
            .unwrap_err();
        let shown = format!("(\"a\\u000a\\u202e{}…\")", "b".repeat(253));
        assert!(error.to_string().contains(&shown), "{error}");
    }

    #[test]
    fn keys_are_refused_at_the_stage_that_fulcio_names() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let weak = pem("PUBLIC KEY", &rsa_spki(&[0x40; 128], &[1, 0, 1]));
        let unknown = pem("PUBLIC KEY", &spki(&[&[6, 3, 0x2b, 0x65, 0x71]], &[9; 57]));
        let p224 = pem(
            "PUBLIC KEY",
            &elliptic_spki(&[0x2b, 0x81, 4, 0, 0x21], &[4; 57]),
        );
        for (public_key, stage, reason) in [
            (String::new(), BAD_KEY, Reason::MalformedPublicKey),
            ("hello".to_owned(), BAD_KEY, Reason::MalformedPublicKey),
            (
                pem("PRIVATE KEY", b"secret"),
                BAD_KEY,
                Reason::MalformedPublicKey,
            ),
            (unknown, BAD_KEY, Reason::AlgorithmNotPermitted),
            (p224, INSECURE, Reason::AlgorithmNotPermitted),
            (weak, INSECURE, Reason::WeakKey),
        ] {
            let refused = refusal(&challenge(public_key.clone(), key.prove(EMAIL)));
            assert_eq!(
                (refused.0.as_str(), refused.2),
                (stage, reason),
                "{public_key}"
            );
        }
    }

    #[test]
    fn requests_are_refused_at_the_stage_that_fulcio_names() {
        let key = TestKey::new(KeyKind::Rsa2048);
        let scheme = KeyKind::Rsa2048.proof_scheme();
        let algorithm = algorithm_identifier(scheme);
        let weak = rsa_spki(&[0x40; 128], &[1, 0, 1]);
        let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
        let sha1 = [&[0x30, 13], &oid[..], &[5, 5, 0]].concat();
        let pss = {
            let hash = [0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
            [&[0x30, 28], &oid[..], &[10, 0x30, 15, 0xa0, 13], &hash].concat()
        };
        let pss_text = "unrecognized signature algorithm: SHA256-RSAPSS";
        for (pem, stage, reason) in [
            ("hello".to_owned(), BAD_REQUEST, Reason::MalformedCsr),
            (pem("CERTIFICATE", b""), BAD_REQUEST, Reason::MalformedCsr),
            (
                key.csr_with(&weak, &algorithm, |_| vec![0]),
                INSECURE,
                Reason::WeakKey,
            ),
            (
                key.csr_with(key.spki_der(), &algorithm, |_| vec![0]),
                BAD_SIGNATURE,
                Reason::BadProof,
            ),
            (
                key.csr_with(key.spki_der(), &sha1, |info| key.sign(scheme, info)),
                BAD_SIGNATURE,
                Reason::BadProof,
            ),
            (
                key.csr_with(key.spki_der(), &pss, |info| key.sign_pss(info)),
                pss_text,
                Reason::AlgorithmNotPermitted,
            ),
        ] {
            let (refused, text, refused_reason) = refusal(&request(pem));
            assert_eq!(
                (refused.as_str(), refused_reason),
                (stage, reason),
                "{text}"
            );
        }
    }

    #[test]
    fn algorithms_that_are_not_listed_are_refused_after_the_proof() {
        for (kind, scheme, text) in [
            (
                KeyKind::EcdsaP256,
                SignatureScheme::Ecdsa(Hash::Sha512),
                "*ecdsa.PublicKey, SHA-512",
            ),
            (
                KeyKind::EcdsaP384,
                SignatureScheme::Ecdsa(Hash::Sha256),
                "*ecdsa.PublicKey, SHA-256",
            ),
            (
                KeyKind::Rsa2048,
                SignatureScheme::RsaPkcs1(Hash::Sha384),
                "*rsa.PublicKey, SHA-384",
            ),
        ] {
            let (stage, _, reason) = refusal(&request(TestKey::new(kind).csr(scheme)));
            assert_eq!(stage, format!("signing algorithm not permitted: {text}"));
            assert_eq!(reason, Reason::AlgorithmNotPermitted);
        }

        let key = TestKey::new(KeyKind::Ed25519);
        let only_p256 = PermittedAlgorithms::parse("ecdsa-sha2-256-nistp256").unwrap();
        let good = challenge(key.pem(), key.prove(EMAIL));
        let error = good.check(&identity(), &only_p256).unwrap_err();
        assert_eq!(
            error.stage().to_string(),
            "signing algorithm not permitted: ed25519.PublicKey, unknown hash value 0"
        );
        assert_eq!(
            error.to_string(),
            "this server is not configured to accept Ed25519 keys"
        );
        let bad = challenge(key.pem(), key.prove("bob@example.com"));
        let error = bad.check(&identity(), &only_p256).unwrap_err();
        assert_eq!(
            error.reason(),
            Reason::BadProof,
            "a bad proof is called so first"
        );
    }

    #[test]
    fn a_request_may_use_a_listed_hash_that_is_not_its_curves_own() {
        let permitted = PermittedAlgorithms::parse("ecdsa-sha2-256-nistp384").unwrap();
        let key = TestKey::new(KeyKind::EcdsaP384);
        let by_request = request(key.csr(SignatureScheme::Ecdsa(Hash::Sha256)));
        assert!(by_request.check(&identity(), &permitted).is_ok());
        let by_challenge = challenge(key.pem(), key.prove(EMAIL));
        let error = by_challenge.check(&identity(), &permitted).unwrap_err();
        assert_eq!(error.reason(), Reason::AlgorithmNotPermitted);
    }

    #[test]
    fn keys_of_the_server_are_refused_to_those_who_hold_them() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let permitted = PermittedAlgorithms::default().reserving([key.spki_der().to_vec()]);
        for proof in [
            challenge(key.pem(), key.prove(EMAIL)),
            request(key.csr(KeyKind::EcdsaP256.proof_scheme())),
        ] {
            let error = proof.check(&identity(), &permitted).unwrap_err();
            assert!(matches!(error, ProofError::ReservedKey), "{error}");
            assert_eq!(
                (error.stage(), error.reason()),
                (Stage::KeyStrength, Reason::WeakKey)
            );
        }
        let pretended = challenge(key.pem(), vec![0]);
        let error = pretended.check(&identity(), &permitted).unwrap_err();
        assert_eq!(
            error.reason(),
            Reason::BadProof,
            "no alarm for a key that is only named"
        );
        let other = TestKey::numbered(KeyKind::EcdsaP256, 2);
        let proof = challenge(other.pem(), other.prove(EMAIL));
        assert!(proof.check(&identity(), &permitted).is_ok());
    }

    #[test]
    fn lists_of_algorithms_mean_what_they_mean_in_fulcio() {
        let parsed = PermittedAlgorithms::parse(PermittedAlgorithms::DEFAULT).unwrap();
        let default = PermittedAlgorithms::default();
        assert_eq!(parsed.pairs.len(), KeyKind::ALL.len());
        assert!(
            default
                .pairs
                .iter()
                .all(|(kind, scheme)| parsed.permits(*kind, *scheme))
        );

        let pss = PermittedAlgorithms::parse(" rsa-sign-pss-3072-sha256 , ed25519-ph").unwrap();
        assert!(pss.permits(KeyKind::Rsa3072, SignatureScheme::RsaPkcs1(Hash::Sha256)));
        assert!(!pss.permits(KeyKind::Rsa2048, SignatureScheme::RsaPkcs1(Hash::Sha256)));
        assert!(!pss.permits(KeyKind::Ed25519, SignatureScheme::Ed25519));

        for (list, name) in [("ed25519,bogus", "bogus"), ("", ""), ("ED25519", "ED25519")] {
            let error = PermittedAlgorithms::parse(list).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("could not find matching signature algorithm for flag: {name}")
            );
        }
    }

    #[test]
    fn debug_shows_neither_token_nor_key_nor_proof() {
        let request = SigningRequest {
            token: IdToken::new("secret-token".to_owned()),
            proof: challenge("secret-key", b"secret-proof".to_vec()),
        };
        assert_eq!(
            format!("{request:?}"),
            "SigningRequest { token: IdToken([redacted]), proof: ProofOfPossession(challenge, [redacted]) }"
        );
    }
}
