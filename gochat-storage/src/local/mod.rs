//! What one process keeps for itself: a cache and the routes of its connections.

mod cache;
mod routes;

pub use cache::LocalCache;
pub use routes::LocalRoutes;
