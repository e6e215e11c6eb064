//! The whole from outside: the running server through its public interfaces, and the shape of the source.
//!
//! One binary, because each test binary links the whole graph anew.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's helper may stop the test"
)]

mod abuse;
mod admin;
mod admin_tls;
mod answers;
mod architecture;
mod cert_commands;
mod cert_request;
mod check_config;
mod corpora;
mod description;
mod diff_config;
mod documents;
mod entries;
mod explain;
mod fulcio;
mod grpc;
mod import;
mod listening;
mod log_commands;
mod log_reads;
mod operating;
mod readiness;
mod refusals;
mod reload;
mod support;
mod test_config;
mod tls;
mod trust_files;
