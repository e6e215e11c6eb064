//! Measures a server from outside, and in the same minutes what the machine can do at best.
//!
//! A figure alone says little: the processor, its neighbours and the disk change from run to run. So every run measures
//! the [`floor`] too, the cryptography and the disk without a server around them, and reports the ratio.

pub mod floor;
pub mod http;
pub mod issuer;
pub mod load;
pub mod policy;
pub mod process;
pub mod reload;
pub mod report;
pub mod server;
