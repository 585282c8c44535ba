//! How values of the domain become protobuf and come back: the shapes. What each type looks like stands in `convert`.
//!
//! ```text
//! caller ─ Argument::out ─► request ═══► Argument::keep, lend ─► port
//! caller ◄─ Wire::back ─── reply ◄═══ Wire::out ──────────────── port
//! ```
//!
//! What comes in is untrusted: ids, enumerations and lengths are checked.

use std::time::Duration;

use bytes::Bytes;
use gochat_core::{
    error::{Code, Error, Result},
    ids::{ClientMsgId, ConversationId, DeviceId, FamilyId, MessageId, PushJobId, Seq, UserId},
    model::UserStatus,
    time::Timestamp,
};

use crate::{bus::codec, pb::model as pb};

/// A value that crosses a process, and its form on the way.
pub trait Wire: Sized {
    /// The form in protobuf.
    type Pb;
    /// Leaves this process.
    fn out(self) -> Self::Pb;
    /// Comes in; refuses what is none of ours.
    fn back(pb: Self::Pb) -> Result<Self>;
}

/// An argument of a port's method: borrowed by who calls, owned on the way, borrowed again by the port.
pub trait Argument<'a>: Sized {
    /// The field of the request.
    type Pb;
    /// What the server keeps while the port works.
    type Kept: 'a;
    /// Leaves this process.
    fn out(self) -> Self::Pb;
    /// Comes in; refuses what is none of ours.
    fn keep(pb: Self::Pb) -> Result<Self::Kept>;
    /// Hands it to the port.
    fn lend(kept: &'a Self::Kept) -> Self;
}

/// What was sent is not what the schema asks for.
pub(super) fn malformed(what: &'static str) -> Error {
    Error::new(Code::InvalidRequest, what)
}

/// The value of a field that must be there.
pub(super) fn need<T: Wire>(field: Option<T::Pb>) -> Result<T> {
    T::back(field.ok_or_else(|| malformed("a required field is missing"))?)
}

/// An optional value leaves.
pub(super) fn maybe<T: Wire>(value: Option<T>) -> Option<T::Pb> {
    value.map(T::out)
}

/// An optional value comes in.
pub(super) fn perhaps<T: Wire>(field: Option<T::Pb>) -> Result<Option<T>> {
    field.map(T::back).transpose()
}

/// Values leave in their order.
pub(super) fn all<T: Wire>(values: impl IntoIterator<Item = T>) -> Vec<T::Pb> {
    values.into_iter().map(T::out).collect()
}

/// Values come in in their order; one that is malformed refuses all.
pub(super) fn each<T: Wire>(fields: Vec<T::Pb>) -> Result<Vec<T>> {
    fields.into_iter().map(T::back).collect()
}

macro_rules! ids {
    ($($Id:ident)*) => {$(
        impl Wire for $Id {
            type Pb = Bytes;
            fn out(self) -> Bytes { codec::id_bytes(self.as_bytes()) }
            fn back(pb: Bytes) -> Result<Self> { $Id::from_slice(&pb) }
        }
    )*};
}
ids!(UserId DeviceId ConversationId MessageId ClientMsgId FamilyId PushJobId);

/// Values that are the same on both sides.
macro_rules! plain {
    ($($Value:ty)*) => {$(
        impl Wire for $Value {
            type Pb = $Value;
            fn out(self) -> $Value { self }
            fn back(pb: $Value) -> Result<Self> { Ok(pb) }
        }
    )*};
}
plain!(bool i32 i64);

impl Wire for Seq {
    type Pb = i64;
    fn out(self) -> i64 {
        self.0
    }
    fn back(pb: i64) -> Result<Self> {
        Ok(Seq(pb))
    }
}

impl Wire for Timestamp {
    type Pb = i64;
    fn out(self) -> i64 {
        self.0
    }
    fn back(pb: i64) -> Result<Self> {
        Ok(Timestamp(pb))
    }
}

impl Wire for Duration {
    type Pb = u64;
    fn out(self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }
    fn back(pb: u64) -> Result<Self> {
        Ok(Duration::from_millis(pb))
    }
}

impl<const N: usize> Wire for [u8; N] {
    type Pb = Bytes;
    fn out(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
    fn back(pb: Bytes) -> Result<Self> {
        pb.as_ref().try_into().map_err(|_| malformed("a hash has another length"))
    }
}

impl Wire for Vec<u8> {
    type Pb = Bytes;
    fn out(self) -> Bytes {
        self.into()
    }
    fn back(pb: Bytes) -> Result<Self> {
        Ok(pb.into())
    }
}

/// A number in words of protobuf: larger than this machine's words is as many as it can count.
pub(super) fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Arguments that are handed over by value.
macro_rules! by_value {
    ($($Value:ty)*) => {$(
        impl<'a> Argument<'a> for $Value {
            type Pb = <$Value as Wire>::Pb;
            type Kept = $Value;
            fn out(self) -> Self::Pb { Wire::out(self) }
            fn keep(pb: Self::Pb) -> Result<$Value> { Wire::back(pb) }
            fn lend(kept: &'a $Value) -> $Value { *kept }
        }
    )*};
}
by_value!(bool UserId DeviceId ConversationId MessageId Seq Timestamp Duration UserStatus);

/// Arguments that may be absent.
macro_rules! by_value_if_any {
    ($($Value:ty),*) => {$(
        impl<'a> Argument<'a> for Option<$Value> {
            type Pb = Option<<$Value as Wire>::Pb>;
            type Kept = Option<$Value>;
            fn out(self) -> Self::Pb { maybe(self) }
            fn keep(pb: Self::Pb) -> Result<Option<$Value>> { perhaps(pb) }
            fn lend(kept: &'a Option<$Value>) -> Option<$Value> { *kept }
        }
    )*};
}
by_value_if_any!(UserId, ConversationId, Seq, (Timestamp, ConversationId), Option<DeviceId>);

impl<'a> Argument<'a> for usize {
    type Pb = u64;
    type Kept = usize;
    fn out(self) -> u64 {
        self as u64
    }
    fn keep(pb: u64) -> Result<usize> {
        Ok(count(pb))
    }
    fn lend(kept: &'a usize) -> usize {
        *kept
    }
}

impl<'a, T: Wire + Clone + 'a> Argument<'a> for &'a T {
    type Pb = Option<T::Pb>;
    type Kept = T;
    fn out(self) -> Option<T::Pb> {
        Some(self.clone().out())
    }
    fn keep(pb: Option<T::Pb>) -> Result<T> {
        need(pb)
    }
    fn lend(kept: &'a T) -> Self {
        kept
    }
}

impl<'a, T: Wire + Clone + 'a> Argument<'a> for &'a [T] {
    type Pb = Vec<T::Pb>;
    type Kept = Vec<T>;
    fn out(self) -> Vec<T::Pb> {
        all(self.iter().cloned())
    }
    fn keep(pb: Vec<T::Pb>) -> Result<Vec<T>> {
        each(pb)
    }
    fn lend(kept: &'a Vec<T>) -> Self {
        kept
    }
}

impl<'a> Argument<'a> for &'a [u8] {
    type Pb = Bytes;
    type Kept = Bytes;
    fn out(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
    fn keep(pb: Bytes) -> Result<Bytes> {
        Ok(pb)
    }
    fn lend(kept: &'a Bytes) -> Self {
        kept
    }
}

impl<'a> Argument<'a> for &'a str {
    type Pb = String;
    type Kept = String;
    fn out(self) -> String {
        self.to_owned()
    }
    fn keep(pb: String) -> Result<String> {
        Ok(pb)
    }
    fn lend(kept: &'a String) -> Self {
        kept
    }
}

impl<'a> Argument<'a> for Option<&'a str> {
    type Pb = Option<String>;
    type Kept = Option<String>;
    fn out(self) -> Option<String> {
        self.map(str::to_owned)
    }
    fn keep(pb: Option<String>) -> Result<Option<String>> {
        Ok(pb)
    }
    fn lend(kept: &'a Option<String>) -> Self {
        kept.as_deref()
    }
}

impl Wire for () {
    type Pb = pb::Done;
    fn out(self) -> pb::Done {
        pb::Done {}
    }
    fn back(_: pb::Done) -> Result<()> {
        Ok(())
    }
}

impl Wire for String {
    type Pb = pb::Text;
    fn out(self) -> pb::Text {
        pb::Text { value: self }
    }
    fn back(pb: pb::Text) -> Result<String> {
        Ok(pb.value)
    }
}

impl Wire for usize {
    type Pb = pb::Count;
    fn out(self) -> pb::Count {
        pb::Count { value: self as u64 }
    }
    fn back(pb: pb::Count) -> Result<usize> {
        Ok(count(pb.value))
    }
}
