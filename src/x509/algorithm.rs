//! The algorithms of requesters: which keys, and which signatures by them.

use std::fmt;

use aws_lc_rs::signature as lc;

/// The kinds of key that certificates are issued for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
    ];

    /// The kind as metrics and logs name it, such as `p256`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "p256",
            Self::EcdsaP384 => "p384",
            Self::EcdsaP521 => "p521",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The scheme that a proof of possession uses with this kind of key.
    #[must_use]
    pub const fn proof_scheme(self) -> SignatureScheme {
        match self {
            Self::EcdsaP256 => SignatureScheme::Ecdsa(Hash::Sha256),
            Self::EcdsaP384 => SignatureScheme::Ecdsa(Hash::Sha384),
            Self::EcdsaP521 => SignatureScheme::Ecdsa(Hash::Sha512),
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => {
                SignatureScheme::RsaPkcs1(Hash::Sha256)
            }
            Self::Ed25519 => SignatureScheme::Ed25519,
        }
    }
}

/// Names the kind for people, such as `ECDSA P-256`.
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::EcdsaP521 => "ECDSA P-521",
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A hash function of the SHA-2 family (FIPS 180-4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The name, such as `SHA-256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
}

/// How a signature is made from a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SignatureScheme {
    /// ECDSA (FIPS 186-5, section 6).
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
    RsaPkcs1(Hash),
    /// Pure Ed25519 (RFC 8032, section 5.1).
    Ed25519,
}

impl SignatureScheme {
    /// The hash of the message, where the scheme has one of its own.
    #[must_use]
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::Ecdsa(hash) | Self::RsaPkcs1(hash) => Some(hash),
            Self::Ed25519 => None,
        }
    }
}

/// The verifier for a kind of key and its [`KeyKind::proof_scheme`].
pub(super) fn proof_algorithm(kind: KeyKind) -> &'static dyn lc::VerificationAlgorithm {
    match kind {
        KeyKind::EcdsaP256 => &lc::ECDSA_P256_SHA256_ASN1,
        KeyKind::EcdsaP384 => &lc::ECDSA_P384_SHA384_ASN1,
        KeyKind::EcdsaP521 => &lc::ECDSA_P521_SHA512_ASN1,
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => &lc::RSA_PKCS1_2048_8192_SHA256,
        KeyKind::Ed25519 => &lc::ED25519,
    }
}

/// The verifier for a kind of key and a scheme, where they fit.
pub(super) fn verification_algorithm(
    kind: KeyKind,
    scheme: SignatureScheme,
) -> Option<&'static dyn lc::VerificationAlgorithm> {
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521, Rsa2048, Rsa3072, Rsa4096};
    use SignatureScheme::{Ecdsa, RsaPkcs1};
    Some(match (kind, scheme) {
        (EcdsaP256, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P256_SHA256_ASN1,
        (EcdsaP256, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P256_SHA384_ASN1,
        (EcdsaP256, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P256_SHA512_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P384_SHA256_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P384_SHA384_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P384_SHA512_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P521_SHA256_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P521_SHA384_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P521_SHA512_ASN1,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha256)) => &lc::RSA_PKCS1_2048_8192_SHA256,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha384)) => &lc::RSA_PKCS1_2048_8192_SHA384,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha512)) => &lc::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Ed25519, SignatureScheme::Ed25519) => &lc::ED25519,
        (EcdsaP256 | EcdsaP384 | EcdsaP521, RsaPkcs1(_) | SignatureScheme::Ed25519)
        | (Rsa2048 | Rsa3072 | Rsa4096, Ecdsa(_) | SignatureScheme::Ed25519)
        | (KeyKind::Ed25519, Ecdsa(_) | RsaPkcs1(_)) => return None,
    })
}
