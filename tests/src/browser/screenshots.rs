//! Screenshots for the documentation.
