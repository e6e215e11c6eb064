//! Rows I: what a hostile or broken issuer answers.
