//! Mayfly: an ephemeral certificate authority for code signing, with its own certificate transparency log.
//!
//! The modules stand in layers, and each uses only the layers below it; `ARCHITECTURE.md` is the map and
//! `tests/architecture.rs` keeps it true. A request runs through `api` → `ca` → `identity`, `x509`, `keys`, `ctlog` →
//! `tlog` → `store`, once, forwards.

// Layer 5: puts the parts together.
pub mod admin;
pub mod bench;
pub mod check;
pub mod commands;
pub mod config;
pub mod dev;
pub mod instance;
pub mod listener;
pub mod logging;
pub mod reload;
pub mod server;
pub mod systemd;

// Layer 4: wire formats, and what they tell of the layers below.
pub mod api;
pub mod policy;
pub mod readiness;

// Layer 3: what the product is for.
pub mod auditor;
pub mod ca;
pub mod client;
pub mod ctlog;
pub mod trust;

// Layer 2: who is asking; a verifiable log of opaque entries.
pub mod identity;
pub mod tlog;

// Layer 1: the outside world and its formats.
pub mod fetch;
pub mod keys;
pub mod limits;
pub mod store;
pub mod x509;

// Layer 0: what everything is given.
pub mod clock;
pub mod excerpt;
pub mod hex;
pub mod metrics;
pub mod parallel;
pub mod proto;
pub mod random;
pub mod reason;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of this build, or `unknown`.
pub const REVISION: &str = env!("MAYFLY_REVISION");
/// The compiler of this build, such as `rustc-1.95.0`.
pub const RUSTC: &str = env!("MAYFLY_RUSTC");
