//! Rows O: the process and what is around it.

mod load;
mod memory;
mod sight;
mod surroundings;
