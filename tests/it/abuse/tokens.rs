//! Rows T: ID tokens.
