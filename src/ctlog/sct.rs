//! (skeleton)
pub struct SignedCertificateTimestamp;
