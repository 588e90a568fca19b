//! Methods, compared exactly: `get` is not `GET`, whatever an upstream makes of it.

/// Which methods a row names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    /// Every known one.
    All,
    /// These; a row with `GET` also takes `HEAD`.
    Named(Vec<String>),
}

/// How closely a row names a method; the closest row of a path decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It takes all methods.
    All,
    /// It names `GET`, which takes `HEAD` along.
    ByGet,
    /// It names the method.
    Exact,
}

impl Methods {
    /// How closely the method is named; `None` when it is not.
    pub(super) fn fit(&self, method: &str) -> Option<Fit> {
        match self {
            Self::All => is_known(method).then_some(Fit::All),
            Self::Named(names) if names.iter().any(|name| name == method) => Some(Fit::Exact),
            Self::Named(names) => {
                (method == "HEAD" && names.iter().any(|name| name == "GET")).then_some(Fit::ByGet)
            }
        }
    }
}

/// Whether "all methods" means this one: the registered ones (RFC 9110 section
/// 16.1), but not `CONNECT` and `TRACE`, which are a proxy's business and echo
/// what the upstream was told. A route that wants another one names it.
fn is_known(method: &str) -> bool {
    matches!(
        method,
        "GET"
            | "HEAD"
            | "POST"
            | "PUT"
            | "DELETE"
            | "OPTIONS"
            | "PATCH"
            | "QUERY"
            | "ACL"
            | "BASELINE-CONTROL"
            | "BIND"
            | "CHECKIN"
            | "CHECKOUT"
            | "COPY"
            | "LABEL"
            | "LINK"
            | "LOCK"
            | "MERGE"
            | "MKACTIVITY"
            | "MKCALENDAR"
            | "MKCOL"
            | "MKREDIRECTREF"
            | "MKWORKSPACE"
            | "MOVE"
            | "ORDERPATCH"
            | "PROPFIND"
            | "PROPPATCH"
            | "REBIND"
            | "REPORT"
            | "SEARCH"
            | "UNBIND"
            | "UNCHECKOUT"
            | "UNLINK"
            | "UNLOCK"
            | "UPDATE"
            | "UPDATEREDIRECTREF"
            | "VERSION-CONTROL"
    )
}

#[cfg(test)]
mod tests {
    use super::{Fit, Methods};

    #[test]
    fn methods_are_compared_exactly_and_unknown_ones_denied() {
        let named = Methods::Named(vec!["GET".to_owned(), "FETCH".to_owned()]);
        for (method, by_name, by_all) in [
            ("GET", Some(Fit::Exact), Some(Fit::All)),
            ("HEAD", Some(Fit::ByGet), Some(Fit::All)),
            ("FETCH", Some(Fit::Exact), None),
            ("POST", None, Some(Fit::All)),
            ("PROPFIND", None, Some(Fit::All)),
            ("get", None, None),
            ("Get", None, None),
            ("head", None, None),
            ("TRACE", None, None),
            ("CONNECT", None, None),
            ("", None, None),
        ] {
            assert_eq!(named.fit(method), by_name, "{method}");
            assert_eq!(Methods::All.fit(method), by_all, "{method}");
        }
    }
}
