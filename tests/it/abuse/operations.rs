//! Rows O: the process and what is around it.

mod sight;
mod surroundings;
