//! Errors across the wire.
//!
//! ```text
//! port's Error ─► status: a gRPC code, and as its details Refusal {code, message, retry_after} ─► the same Error
//! no answer    ─► Failure: was it never sent, may it have run, is it merely late?
//! ```
//!
//! The technical source stays where it arose: it is written to the server's log and does not travel.

use std::{error::Error as _, time::Duration};

use gochat_core::error::{Code, Error, ErrorKind};
use prost::Message as _;
use tonic::{Code as Grpc, Status};

use crate::pb::bus::Refusal;

/// A refusal as it travels: an item of a batch, or the details of a status.
pub(super) fn refusal(error: &Error) -> Refusal {
    if let Some(source) = error.source() {
        let code = error.code.as_str();
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Internal => {
                tracing::warn!(code, message = %error.message, %source, "a call failed")
            }
            _ => tracing::debug!(code, message = %error.message, %source, "a call was refused"),
        }
    }
    Refusal {
        code: error.code.as_str().to_owned(),
        message: error.message.clone().into_owned(),
        retry_after_ms: error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// The error that was sent. A code that only the other side's version knows is `INTERNAL` here and named in the message.
pub(super) fn error(refusal: Refusal) -> Error {
    let mut error = match Code::parse(&refusal.code) {
        Some(code) => Error::new(code, refusal.message),
        None => Error::new(Code::Internal, format!("{} ({}, a code of another version)", refusal.message, refusal.code)),
    };
    error.retry_after = refusal.retry_after_ms.map(Duration::from_millis);
    error
}

/// The status that carries an error.
pub(super) fn status(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::Invalid | ErrorKind::Unsupported => Grpc::InvalidArgument,
        ErrorKind::Unauthenticated => Grpc::Unauthenticated,
        ErrorKind::Denied => Grpc::PermissionDenied,
        ErrorKind::NotFound => Grpc::NotFound,
        ErrorKind::NotAllowed | ErrorKind::Conflict => Grpc::FailedPrecondition,
        ErrorKind::TooLarge => Grpc::OutOfRange,
        ErrorKind::RateLimited => Grpc::ResourceExhausted,
        ErrorKind::Unavailable => Grpc::Unavailable,
        ErrorKind::Unknown => Grpc::DeadlineExceeded,
        ErrorKind::Internal => Grpc::Internal,
    };
    let refusal = refusal(error);
    Status::with_details(code, refusal.message.clone(), refusal.encode_to_vec().into())
}

/// Why a call has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service answered with an error of its own.
    Refused(Error),
    /// The server answered that it stopped waiting; the call may have run.
    Late(Status),
    /// Nobody answered in time; the call may have run.
    Silent(Status),
    /// The endpoint does not know the method: it is of another version. The call did not run.
    NotThere(Status),
    /// The connection was gone before it took the call, which never left this process.
    Unsent(Status),
    /// There was no connection, and a new one could not be made; the call never left this process.
    Unreachable(Status),
    /// The connection broke; the call may have run.
    Lost(Status),
}

/// What a status says about the call.
pub(super) fn failure(status: Status) -> Failure {
    if !status.details().is_empty()
        && let Ok(refusal) = Refusal::decode(status.details())
        && !refusal.code.is_empty()
    {
        return Failure::Refused(error(refusal));
    }
    if caused_by(&status, |cause| cause.is::<tonic::ConnectError>()) {
        return Failure::Unreachable(status);
    }
    if caused_by(&status, |cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)) {
        return Failure::Unsent(status);
    }
    match status.code() {
        // tonic's word for a message above its limit, whoever noticed it.
        Grpc::OutOfRange => Failure::Refused(Error::from(Code::TooLarge).with_source(status)),
        Grpc::DeadlineExceeded => Failure::Late(status),
        // tonic's word for a deadline that passed on this side.
        Grpc::Cancelled => Failure::Silent(status),
        Grpc::Unimplemented => Failure::NotThere(status),
        _ => Failure::Lost(status),
    }
}

/// Whether something in the chain of causes is this.
fn caused_by(status: &Status, is: impl Fn(&(dyn std::error::Error + 'static)) -> bool) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if is(error) {
            return true;
        }
        cause = error.source();
    }
    false
}
