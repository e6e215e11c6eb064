//! Rows X: what is in a certificate, and what keeps it from being made.
