//! Rows K: the CA's own key.
