use std::time::Duration;

use super::http::HttpRates;

/// Every limit of a gateway, by name. None can be switched off; the defaults are those of docs/protocol.md §6.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Origins (`https://chat.example.org`) that pages may connect from, beside the server's own.
    pub allowed_origins: Vec<String>,
    /// Threads that serve connections, 1 to 64. On few cores more of them only cost coalescing.
    pub shards: usize,
    /// Users in one answer of a search.
    pub user_search_max: usize,

    /// Bytes of a frame and of a message before authentication.
    pub first_frame_bytes_max: usize,
    /// Bytes of a frame and of a message afterwards.
    pub frame_bytes_max: usize,
    /// Frames that one message may be cut into.
    pub fragments_max: usize,
    /// Nesting of the JSON of a frame.
    pub json_depth_max: usize,

    /// Time from the upgrade to a finished authentication.
    pub auth_deadline: Duration,
    /// Time in which a message that has begun must be complete.
    pub frame_deadline: Duration,
    /// Silence after which the peer is pinged.
    pub ping_after: Duration,
    /// Further silence after which it is given up.
    pub pong_within: Duration,
    /// Time without progress after which a peer that does not read is given up.
    pub write_stall: Duration,
    /// Time that a peer has to answer our Close frame.
    pub linger: Duration,

    /// Bytes of pushes that wait for a slow peer; beyond it they are dropped and one `resync` takes their place.
    pub outbox_bytes_max: usize,
    /// Bytes of answers that wait for a slow peer; beyond it answers become `OVERLOADED`, and then the connection closes.
    pub answers_bytes_max: usize,
    /// Bytes of messages in one answer of `history` or `sync`; what does not fit is asked for again (`more`).
    pub answer_bytes_max: usize,
    /// Bytes that the kernel holds unsent before a socket counts as not writable.
    pub unsent_bytes: u32,

    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one address that are not authenticated.
    pub connections_per_address: usize,
    /// Requests of one connection, other than sends, that wait for their answers.
    pub requests_in_flight_max: u32,
    /// Sends of one connection per second, sustained.
    pub sends_per_second: u32,
    /// Sends of one connection in a burst.
    pub send_burst: u32,
    /// Pings and pongs of one connection per second, sustained.
    pub controls_per_second: u32,
    /// Pings and pongs of one connection in a burst.
    pub control_burst: u32,

    /// HTTP connections that are served at once; further ones wait in the kernel's backlog.
    pub http_connections_max: usize,
    /// Time in which a request's header must be complete; also ends an idle connection.
    pub http_header_deadline: Duration,
    /// Bytes of a request's header.
    pub http_header_bytes_max: usize,
    /// Bytes of a request's body.
    pub http_body_bytes_max: usize,
    /// Time for a request's body and its answer.
    pub http_request_deadline: Duration,
    /// How often one address may ask for what needs no token.
    pub http_rates: HttpRates,
    /// Time for an unread answer to be taken by the peer's kernel.
    pub http_write_stall: Duration,

    /// How long an HTTP request waits for its message to be stored.
    pub send_deadline: Duration,
    /// HTTP requests that wait for that at once.
    pub sends_waiting_max: usize,
    /// Life of a route; renewed three times as often.
    pub route_lease: Duration,
    /// How long marks are gathered.
    pub marks_every: Duration,
    /// Marks that are gathered at most.
    pub marks_waiting_max: usize,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        GatewaySettings {
            allowed_origins: Vec::new(),
            shards: (cores / 2).max(1),
            user_search_max: 20,
            first_frame_bytes_max: 4 * 1024,
            frame_bytes_max: 64 * 1024,
            fragments_max: 64,
            json_depth_max: 32,
            auth_deadline: Duration::from_secs(5),
            frame_deadline: Duration::from_secs(10),
            ping_after: Duration::from_secs(25),
            pong_within: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            linger: Duration::from_secs(2),
            outbox_bytes_max: 64 * 1024,
            answers_bytes_max: 1024 * 1024,
            answer_bytes_max: 256 * 1024,
            unsent_bytes: 16 * 1024,
            connections_max: 200_000,
            connections_per_address: 100,
            requests_in_flight_max: 32,
            sends_per_second: 200,
            send_burst: 400,
            controls_per_second: 10,
            control_burst: 64,
            http_connections_max: 4096,
            http_header_deadline: Duration::from_secs(5),
            http_header_bytes_max: 16 * 1024,
            http_body_bytes_max: 64 * 1024,
            http_request_deadline: Duration::from_secs(30),
            http_rates: HttpRates::default(),
            http_write_stall: Duration::from_secs(20),
            send_deadline: Duration::from_secs(10),
            sends_waiting_max: 8192,
            route_lease: Duration::from_secs(15),
            marks_every: Duration::from_secs(1),
            marks_waiting_max: 100_000,
        }
    }
}
