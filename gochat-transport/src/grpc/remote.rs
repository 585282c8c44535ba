//! What a line of a table of methods becomes: the client's method and the server's.
//!
//! `Read history(reader: UserId, …) -> Vec<Message> = HistoryRequest;` – a word about the call ([`Kind`](super::channel::Kind)), the
//! port's method as it is declared there, and the message of the request, whose fields are named like the arguments.

use std::time::Duration;

use gochat_core::error::Result;
use tonic::{Response, Status, metadata::MetadataMap};

use super::{errors, wire::Wire};

/// What the server is faster than its caller's deadline, so that the caller hears that it is alive.
const ANSWER_AHEAD: Duration = Duration::from_millis(50);

/// Waits for a port no longer than the caller does. What the port began goes on: dropping a port's future cuts no transaction.
pub(super) async fn answer<T: Wire>(metadata: &MetadataMap, work: impl Future<Output = Result<T>> + Send) -> Result<Response<T::Pb>, Status> {
    let outcome = match deadline(metadata) {
        Some(wait) => tokio::time::timeout(wait - ANSWER_AHEAD.min(wait / 10), work).await,
        None => Ok(work.await),
    };
    match outcome {
        Ok(Ok(value)) => Ok(Response::new(value.out())),
        Ok(Err(error)) => Err(errors::status(&error)),
        Err(_) => Err(Status::deadline_exceeded("the server stopped waiting; what was begun goes on")),
    }
}

/// The caller's deadline: at most eight digits and a unit.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

macro_rules! remote {
    (
        $(#[$server_doc:meta])*
        server $Server:ident is $Service:ident over $Port:ident;
        $(#[$client_doc:meta])*
        client $Client:ident is $Stub:ident with $role:expr;
        $($Trait:ident { $($Kind:ident $method:ident($($arg:ident: $Arg:ty),*) -> $Reply:ty = $Request:ident;)* })*
    ) => {
        $(#[$server_doc])*
        #[derive(Clone, Debug)]
        pub struct $Server {
            port: Arc<dyn $Port>,
        }

        impl $Server {
            /// Serves this.
            pub fn new(port: Arc<dyn $Port>) -> Self {
                $Server { port }
            }
        }

        #[async_trait]
        impl $Service for $Server {
            $($(
                async fn $method(&self, request: Request<pb::$Request>) -> Result<Response<<$Reply as Wire>::Pb>, Status> {
                    let (metadata, _, request) = request.into_parts();
                    remote::answer(&metadata, async move {
                        $(let $arg = <$Arg as Argument>::keep(request.$arg)?;)*
                        self.port.$method($(<$Arg as Argument>::lend(&$arg)),*).await
                    })
                    .await
                }
            )*)*
        }

        $(#[$client_doc])*
        #[derive(Clone, Debug)]
        pub struct $Client {
            calls: Arc<Calls>,
        }

        impl $Client {
            /// A client of these endpoints (`http://host:port` or `host:port`); connects when it is first used. A name is resolved
            /// again for every new connection. `INVALID_FIELD` for what is no address, and for none at all.
            pub fn new(endpoints: &[String], settings: &ClientSettings) -> Result<Self> {
                Ok($Client { calls: Arc::new(Calls::new($role, endpoints, settings)?) })
            }

            /// Whether some endpoint serves now. `UNAVAILABLE` names the endpoints that are waited for, and why.
            pub async fn ready(&self) -> Result<()> {
                self.calls.ready().await
            }
        }

        $(#[async_trait]
        impl $Trait for $Client {
            $(
                async fn $method(&self, $($arg: $Arg),*) -> Result<$Reply> {
                    let request = || pb::$Request { $($arg: Argument::out($arg)),* };
                    let send = |channel, request| async move {
                        let stub = $Stub::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
                        stub.max_encoding_message_size(MESSAGE_BYTES_MAX).$method(request).await
                    };
                    self.calls.call(Kind::$Kind, request, send).await
                }
            )*
        })*
    };
}
pub(super) use remote;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit_and_never_panics() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("4999m"), Some(Duration::from_millis(4999)));
        assert_eq!((read("7u"), read("8n")), (Some(Duration::from_micros(7)), Some(Duration::from_nanos(8))));
        for nonsense in ["", "S", "5", "5x", "-1S", "999999999S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
