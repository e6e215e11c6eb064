//! Checkpoints: a tree head as a signed note (C2SP tlog-checkpoint, signed-note), with the signature of an RFC 6962 log
//! (C2SP static-ct-api, section "Checkpoints").

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tree::{Hash, sha256};
use crate::keys::{SignError, SignatureAlgorithm, Signer};

/// A longer note is refused unread. Ours has less than 300 octets; witnesses add a line each.
const MAX_NOTE_BYTES: usize = 64 << 10;
/// The type of an RFC 6962 signature in a note's key ID.
const RFC6962_KEY_TYPE: u8 = 0x05;
/// SHA-256, then ECDSA, as a `digitally-signed` struct begins (RFC 5246, section 7.4.1.4.1).
const SHA256_ECDSA: [u8; 2] = [4, 3];

/// The size and root of a tree at one moment (RFC 6962, section 3.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeHead {
    /// The number of leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Milliseconds since 1970.
    pub timestamp: u64,
}

impl TreeHead {
    /// The 50 octets that a log signs: `TreeHeadSignature` (RFC 6962, section 3.5).
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes
    }
}

/// A tree head with the log's signature: what a checkpoint says, and `get-sth` of RFC 6962 too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedTreeHead {
    /// What is signed.
    pub head: TreeHead,
    /// A `digitally-signed` struct over [`TreeHead::signed_bytes`].
    pub signature: Vec<u8>,
}

/// Who a log is: the name in its checkpoints, and its public key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogIdentity {
    origin: String,
    public_key_der: Vec<u8>,
    log_id: [u8; 32],
}

/// Why a note is not a checkpoint of the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    /// The note does not have the form.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// The first line names another log.
    #[error("a checkpoint of the log {found:?}, not of {expected:?}")]
    OtherOrigin {
        /// What the note says.
        found: String,
        /// What this log is called.
        expected: String,
    },
    /// No line is a signature of the log's key, or the signature does not verify.
    #[error("a checkpoint without a good signature of this log's key")]
    BadSignature,
}

impl LogIdentity {
    /// Names the log of an origin and an ECDSA P-256 key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn new(origin: impl Into<String>, public_key_der: &[u8]) -> Self {
        Self {
            origin: origin.into(),
            public_key_der: public_key_der.to_vec(),
            log_id: sha256(&[public_key_der]),
        }
    }

    /// The first line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The public key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// SHA-256 of the public key (RFC 6962, section 3.2).
    #[must_use]
    pub const fn log_id(&self) -> &[u8; 32] {
        &self.log_id
    }

    /// Whether `signature`, a DER `ECDSA-Sig-Value`, is one of the log's key over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key_der)
            .verify(message, signature)
            .is_ok()
    }

    /// Reads a checkpoint of this log and verifies its signature. Lines of other signers are passed over.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn verify(&self, note: &[u8]) -> Result<TreeHead, CheckpointError> {
        self.open(note).map(|signed| signed.head)
    }

    /// Reads a checkpoint as [`Self::verify`] does, and returns the log's signature too.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(&self, note: &[u8]) -> Result<SignedTreeHead, CheckpointError> {
        use CheckpointError::{BadSignature, Malformed};

        if note.len() > MAX_NOTE_BYTES {
            return Err(Malformed("longer than 64 KiB"));
        }
        let note = str::from_utf8(note).map_err(|_| Malformed("not UTF-8"))?;
        let (text, signatures) = note
            .split_once("\n\n")
            .ok_or(Malformed("no empty line before the signatures"))?;
        let mut lines = text.split('\n');
        let origin = lines.next().unwrap_or_default();
        if origin != self.origin {
            return Err(CheckpointError::OtherOrigin {
                found: origin.escape_debug().take(256).collect(),
                expected: self.origin.clone(),
            });
        }
        let size = lines
            .next()
            .and_then(|line| Some((line, line.parse::<u64>().ok()?)))
            .filter(|(line, size)| size.to_string() == *line)
            .map(|(_, size)| size)
            .ok_or(Malformed("the second line is not a size"))?;
        let root = lines
            .next()
            .and_then(|line| STANDARD.decode(line).ok())
            .and_then(|root| Hash::try_from(root).ok())
            .ok_or(Malformed("the third line is not a root hash"))?;
        // The signature does not cover further lines (static-ct-api), so there must be none.
        if lines.next().is_some() {
            return Err(Malformed("more than three lines of text"));
        }
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or(Malformed("the last line has no end"))?;
        let mut own = None;
        for line in signatures.split('\n') {
            let (name, blob) = line
                .strip_prefix("\u{2014} ")
                .and_then(|line| line.split_once(' '))
                .ok_or(Malformed("a line is not a signature"))?;
            let blob = STANDARD
                .decode(blob)
                .map_err(|_| Malformed("a signature is not base64"))?;
            let (key_id, signature) = blob
                .split_first_chunk::<4>()
                .ok_or(Malformed("a signature is too short"))?;
            if name == self.origin
                && *key_id == self.key_id()
                && own.replace(signature.to_vec()).is_some()
            {
                return Err(Malformed("two signatures of one key"));
            }
        }
        let own = own.ok_or(BadSignature)?;
        let (timestamp, signed) = own.split_first_chunk::<8>().ok_or(BadSignature)?;
        let head = TreeHead {
            size,
            root,
            timestamp: u64::from_be_bytes(*timestamp),
        };
        let signature = signed.strip_prefix(&SHA256_ECDSA).ok_or(BadSignature)?;
        let (length, signature) = signature.split_first_chunk::<2>().ok_or(BadSignature)?;
        let is_good = usize::from(u16::from_be_bytes(*length)) == signature.len()
            && self.verifies(&head.signed_bytes(), signature);
        let signature = signed.to_vec();
        is_good
            .then_some(SignedTreeHead { head, signature })
            .ok_or(BadSignature)
    }

    /// The key ID in the signature line: of the log ID, not of the key as in other types of note.
    fn key_id(&self) -> [u8; 4] {
        let hash = sha256(&[
            self.origin.as_bytes(),
            b"\n",
            &[RFC6962_KEY_TYPE],
            &self.log_id,
        ]);
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }
}

/// A log's identity with its private key.
#[derive(Clone, Debug)]
pub struct LogKey {
    identity: LogIdentity,
    signer: Arc<dyn Signer>,
}

impl LogKey {
    /// Takes the key of the log `origin`, and tries it.
    ///
    /// # Errors
    /// When it is not an ECDSA P-256 key, or does not sign what its public key verifies.
    pub fn new(origin: impl Into<String>, signer: Arc<dyn Signer>) -> Result<Self, SignError> {
        let key = Self {
            identity: LogIdentity::new(origin, signer.public_key_der()),
            signer,
        };
        if key.signer.algorithm() != SignatureAlgorithm::EcdsaP256Sha256 {
            return Err(SignError::Backend(
                "a log's key must be ECDSA P-256: some clients take no other".to_owned(),
            ));
        }
        let probe = b"mayfly key check";
        let signature = wait(key.signer.sign(probe))?;
        if !key.identity.verifies(probe, &signature) {
            return Err(SignError::BadSignature);
        }
        Ok(key)
    }

    /// The public part.
    #[must_use]
    pub const fn identity(&self) -> &LogIdentity {
        &self.identity
    }

    /// The private part.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// Signs a checkpoint and verifies it before it leaves. Waits for the key, so it is for threads without a runtime.
    ///
    /// # Errors
    /// When the key does not sign, or not correctly.
    pub fn checkpoint(&self, head: &TreeHead) -> Result<String, SignError> {
        let identity = &self.identity;
        let message = head.signed_bytes();
        let signature = wait(self.signer.sign(&message))?;
        let length = u16::try_from(signature.len())
            .ok()
            .filter(|_| identity.verifies(&message, &signature))
            .ok_or(SignError::BadSignature)?;
        let mut blob = identity.key_id().to_vec();
        blob.extend_from_slice(&head.timestamp.to_be_bytes());
        blob.extend_from_slice(&SHA256_ECDSA);
        blob.extend_from_slice(&length.to_be_bytes());
        blob.extend_from_slice(&signature);
        Ok(format!(
            "{origin}\n{size}\n{root}\n\n\u{2014} {origin} {signature}\n",
            origin = identity.origin,
            size = head.size,
            root = STANDARD.encode(head.root),
            signature = STANDARD.encode(blob),
        ))
    }
}

/// Runs a future on this thread, which sleeps meanwhile. A key in memory answers at the first poll.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::InMemoryKey;
    use crate::keys::deterministic::DeterministicKey;
    use crate::keys::memory::NewKey;

    const ORIGIN: &str = "mayfly.test/log";
    const GOLDEN: &str = "mayfly.test/log\n1\nWrEVs/Aq5qr2/5S7Ae1n/niTFWX5bXgebc99juMB36U=\n\n\
        \u{2014} mayfly.test/log 6SbsagAAAZt22qh8BAMARzBFAiBXtmzLC1ZBz3G0dWB8XLoqrDraZxd50HXb9eLe9RSOKgIhAIBxz62jX+MFucunSiV/ZYfUTamlX9OeIMal3oaUc58+\n";

    fn key() -> LogKey {
        LogKey::new(ORIGIN, Arc::new(DeterministicKey::new(0x11))).unwrap()
    }

    fn golden_head() -> TreeHead {
        let root = STANDARD
            .decode("WrEVs/Aq5qr2/5S7Ae1n/niTFWX5bXgebc99juMB36U=")
            .unwrap();
        TreeHead {
            size: 1,
            root: root.try_into().unwrap(),
            timestamp: 1_767_225_600_124,
        }
    }

    #[test]
    fn a_checkpoint_has_the_bytes_of_the_golden_vector() {
        assert_eq!(key().checkpoint(&golden_head()).unwrap(), GOLDEN);
    }

    #[test]
    fn a_checkpoint_verifies_and_tells_its_head() {
        assert_eq!(
            key().identity().verify(GOLDEN.as_bytes()),
            Ok(golden_head())
        );
    }

    #[test]
    fn lines_of_other_signers_are_passed_over() {
        let cosigned = format!("{GOLDEN}\u{2014} witness.example AAAAAAECAwQ=\n");
        assert_eq!(
            key().identity().verify(cosigned.as_bytes()),
            Ok(golden_head())
        );
    }

    #[test]
    fn notes_that_are_not_exactly_a_checkpoint_are_refused() {
        let identity = key().identity().clone();
        let line = GOLDEN.split_once("\n\n").unwrap().1;
        for (what, note) in [
            ("another size", GOLDEN.replacen("\n1\n", "\n2\n", 1)),
            ("a leading zero", GOLDEN.replacen("\n1\n", "\n01\n", 1)),
            ("a sign", GOLDEN.replacen("\n1\n", "\n+1\n", 1)),
            (
                "a size of 2^64",
                GOLDEN.replacen("\n1\n", "\n18446744073709551616\n", 1),
            ),
            ("another root", GOLDEN.replacen("WrEV", "XrEV", 1)),
            ("a short root", GOLDEN.replacen("WrEV", "", 1)),
            (
                "another origin",
                GOLDEN.replacen(ORIGIN, "mayfly.test/2", 1),
            ),
            ("a fourth line", GOLDEN.replacen("\n\n", "\nmore\n\n", 1)),
            ("line ends of two octets", GOLDEN.replace('\n', "\r\n")),
            (
                "no signature",
                format!("{}\n\n", GOLDEN.split_once("\n\n").unwrap().0),
            ),
            ("the same signature twice", format!("{GOLDEN}{line}")),
            (
                "another timestamp",
                GOLDEN.replacen("6SbsagAAAZt22qh8", "6SbsagAAAZt22qh9", 1),
            ),
            ("a damaged signature", GOLDEN.replacen("Uc58+", "Uc58/", 1)),
            ("a line that is no signature", format!("{GOLDEN}more\n")),
            ("no last line end", GOLDEN.trim_end().to_owned()),
            ("nothing", String::new()),
            (
                "more than 64 KiB",
                format!("{GOLDEN}{}", "\u{2014} a AAAA\n".repeat(7000)),
            ),
        ] {
            assert!(
                identity.verify(note.as_bytes()).is_err(),
                "{what}: {note:?}"
            );
        }
    }

    #[test]
    fn a_key_that_clients_refuse_is_refused() {
        let (key, _) = InMemoryKey::generate(NewKey::P384).unwrap();
        assert!(LogKey::new(ORIGIN, Arc::new(key)).is_err());
    }
}
