//! What a failure was, and the words for it.

/// What a failure was. Four bits of the breaker's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Nothing has failed yet.
    #[default]
    None,
    /// The connection was refused.
    Refused,
    /// No connection could be made, and nothing said why in time.
    Unreachable,
    /// The connection ended before the answer began.
    Lost,
    /// The answer broke off before its end.
    Cut,
    /// The answer was not HTTP.
    Garbage,
    /// A status of 500 or more, except 503.
    Error,
    /// 429 or 503: load, not illness.
    Overloaded,
    /// 401 or 403 to a request that another engine answered.
    Denied,
    /// 404, 405 or 501 to a request that another engine answered.
    Missing,
    /// No answer in time.
    Timeout,
}

impl Cause {
    pub(super) const ALL: [Self; 11] = [
        Self::None,
        Self::Refused,
        Self::Unreachable,
        Self::Lost,
        Self::Cut,
        Self::Garbage,
        Self::Error,
        Self::Overloaded,
        Self::Denied,
        Self::Missing,
        Self::Timeout,
    ];

    /// Stable word for pages and log fields.
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Garbage => "garbage",
            Self::Error => "error",
            Self::Overloaded => "overloaded",
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Timeout => "timeout",
        }
    }

    /// The cause in words, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::None => "has not failed",
            Self::Refused => "refuses connections",
            Self::Unreachable => "cannot be reached",
            Self::Lost => "closes connections before it answers",
            Self::Cut => "breaks its answers off",
            Self::Garbage => "answers with something that is not HTTP",
            Self::Error => "answers with server errors",
            Self::Overloaded => "says that it is overloaded",
            Self::Denied => "denies requests that another engine answers",
            Self::Missing => "does not know requests that another engine answers",
            Self::Timeout => "does not answer in time",
        }
    }

    /// Whether no connection was made, so that the engine has seen nothing of the request.
    pub const fn is_unconnected(self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable)
    }

    /// Whether finding out costs a request seconds.
    pub(super) const fn is_slow(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout)
    }

    pub(super) fn unpack(bits: u64) -> Self {
        Self::ALL.get(bits as usize & 0xF).copied().unwrap_or_default()
    }
}
