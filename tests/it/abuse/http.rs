//! Rows H: what is sent to the listener.
