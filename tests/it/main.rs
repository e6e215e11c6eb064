//! The whole from outside: the running server through its public interfaces, and the shape of the source.
//!
//! One binary, because each test binary links the whole graph anew.

mod answers;
mod architecture;
mod documents;
mod listening;
mod refusals;
mod support;
