//! One file per question that a user of GoChat asks.
//!
//! | question | file |
//! |---|---|
//! | How do I put the whole server, with rules of my own, into my application? | `src/bin/embed.rs` |
//! | How do I write a backend of my own and prove that it is right? | `src/bin/custom_cache.rs` |
