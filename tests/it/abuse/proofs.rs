//! Rows P: client keys and proofs that the client holds them.
