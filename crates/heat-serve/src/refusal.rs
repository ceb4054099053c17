//! What a request is refused for: one sentence for the client, and its code in each protocol.

/// Why a request has no scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, which decides the code.
    pub kind: Kind,
    /// One sentence: what was wrong, what was expected.
    pub text: String,
    /// The same for the log, where the text quotes a value.
    unquoted: Option<String>,
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request contradicts itself or the model.
    Invalid,
    /// Without a token that is known.
    Unauthenticated,
    /// With a token of another scope, or from another site.
    Forbidden,
    /// No such model, version or address.
    NotFound,
    /// No such method at this address.
    Method,
    /// The client was too slow.
    Slow,
    /// Something else of the kind is being done.
    Conflict,
    /// More than a request may have.
    TooLarge,
    /// An encoding that is not known.
    Encoding,
    /// More than the server can hold now.
    Busy,
    /// The server's fault.
    Internal,
    /// Not ready, or about to end.
    Unavailable,
    /// The answer would come too late.
    Late,
}

impl Kind {
    /// The status code of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Method => 405,
            Kind::Slow => 408,
            Kind::Conflict => 409,
            Kind::TooLarge => 413,
            Kind::Encoding => 415,
            Kind::Busy => 429,
            Kind::Internal => 500,
            Kind::Unavailable => 503,
            Kind::Late => 504,
        }
    }
}

impl Refusal {
    /// One of that kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Refusal { kind, text: text.into(), unquoted: None }
    }

    /// With another text for the log, where the own one quotes a value: values are the client's
    /// data, and belong in no log.
    pub fn unquoted(self, text: impl Into<String>) -> Self {
        Refusal { unquoted: Some(text.into()), ..self }
    }

    /// A request that contradicts itself or the model.
    pub fn invalid(text: impl Into<String>) -> Self {
        Refusal::new(Kind::Invalid, text)
    }

    /// The text, printable and short: names in it are the client's.
    pub fn message(&self) -> String {
        heat_ood::printable(&self.text)
    }

    /// What the log says of it: no value of the request.
    pub fn for_log(&self) -> String {
        heat_ood::printable(self.unquoted.as_ref().unwrap_or(&self.text))
    }
}

/// There are as many connections as there may be.
pub fn no_connections() -> Refusal {
    Refusal::new(Kind::Unavailable, "as many connections are open as there may be; try again")
}

/// What is done where it can be refused.
pub type Result<T> = std::result::Result<T, Refusal>;
