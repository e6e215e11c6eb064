//! Rows L: the log, when the store, the clock or the process fails.
