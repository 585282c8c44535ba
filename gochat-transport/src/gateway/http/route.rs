//! A line of the table of routes: what axum serves and what the OpenAPI document says of it, in one value.

use axum::{
    handler::Handler,
    routing::{MethodFilter, MethodRouter},
};
use gochat_core::error::Code;
use http::Method;

use super::Shared;

/// One method of one path.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path below the base path; what stands in braces is an id.
    pub path: &'static str,
    /// What serves it.
    pub handler: MethodRouter<Shared>,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Whether it needs no access token.
    pub open: bool,
    /// Whether it is counted against the rates of its address.
    pub limited: bool,
    /// Query parameters and headers.
    pub parameters: Vec<Parameter>,
    /// Schema of the request's body.
    pub body: Option<&'static str>,
    /// Status of success, what it means and the schema of its body.
    pub answers: Vec<Answer>,
    /// Refusals beyond those that follow from the fields above.
    pub refuses: Vec<Code>,
}

/// A success.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// What it means.
    pub means: &'static str,
    /// Schema of its body.
    pub schema: Option<&'static str>,
}

/// A query parameter or header.
#[derive(Clone, Copy)]
pub struct Parameter {
    /// `query` or `header`.
    pub place: &'static str,
    /// Name.
    pub name: &'static str,
    /// Name of its schema.
    pub schema: &'static str,
    /// Whether it has to be there.
    pub required: bool,
    /// What it does.
    pub means: &'static str,
    /// Refusal of a wrong value.
    pub refusal: Code,
}

impl Parameter {
    /// An optional parameter of the query.
    pub const fn query(name: &'static str, schema: &'static str, means: &'static str) -> Self {
        Parameter { place: "query", name, schema, required: false, means, refusal: Code::InvalidField }
    }
}

/// Items at most.
pub const LIMIT: Parameter = Parameter::query("limit", "Limit", "Items at most; 50 if absent.");
/// Where to go on.
pub const CURSOR: Parameter =
    Parameter { refusal: Code::InvalidCursor, ..Parameter::query("cursor", "Cursor", "Where the page begins: `next_cursor` of the page before.") };

impl Route {
    /// A `GET` (and `HEAD`).
    pub fn get<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route::new(Method::GET, MethodFilter::GET, path, handler)
    }

    /// A `POST`.
    pub fn post<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route::new(Method::POST, MethodFilter::POST, path, handler)
    }

    /// A `PUT`.
    pub fn put<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route::new(Method::PUT, MethodFilter::PUT, path, handler)
    }

    /// A `PATCH`.
    pub fn patch<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route::new(Method::PATCH, MethodFilter::PATCH, path, handler)
    }

    /// A `DELETE`.
    pub fn delete<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
        Route::new(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    fn new<H: Handler<T, Shared>, T: 'static>(method: Method, filter: MethodFilter, path: &'static str, handler: H) -> Route {
        let handler = MethodRouter::new().on(filter, handler);
        let (summary, open, limited, body) = ("", false, false, None);
        Route { method, path, handler, summary, open, limited, parameters: Vec::new(), body, answers: Vec::new(), refuses: Vec::new() }
    }

    /// What it does, in a line.
    #[must_use]
    pub fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Needs no access token.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Is counted against the rates of its address.
    #[must_use]
    pub fn limited(mut self) -> Self {
        self.limited = true;
        self
    }

    /// Takes a query parameter or header.
    #[must_use]
    pub fn takes(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Takes a JSON body of this schema.
    #[must_use]
    pub fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    /// Succeeds with a JSON body of this schema.
    #[must_use]
    pub fn answers(mut self, status: u16, means: &'static str, schema: &'static str) -> Self {
        self.answers.push(Answer { status, means, schema: Some(schema) });
        self
    }

    /// Succeeds without a body.
    #[must_use]
    pub fn ends(mut self, status: u16, means: &'static str) -> Self {
        self.answers.push(Answer { status, means, schema: None });
        self
    }

    /// Refuses with these codes.
    #[must_use]
    pub fn refuses(mut self, codes: &[Code]) -> Self {
        self.refuses.extend_from_slice(codes);
        self
    }

    /// The names in braces.
    pub fn path_ids(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}
