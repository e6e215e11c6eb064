//! (skeleton)
pub struct InMemoryKey;
