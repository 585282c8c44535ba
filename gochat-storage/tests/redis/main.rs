//! Redis on real servers: the public suites on a single server and on a Cluster, and what an outage costs.
//!
//! Addresses come from `GOCHAT_TEST_REDIS` and `GOCHAT_TEST_REDIS_CLUSTER`; outages happen to servers of the tests' own.

#![allow(missing_docs)]

mod caching;
mod moves;
mod outages;
mod suites;
mod support;
mod trips;
