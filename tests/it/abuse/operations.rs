//! Rows O: the process and what is around it.

mod load;
mod sight;
mod surroundings;
