//! Values of headers that tell browsers what pages may do, in the order of how
//! strict they are.

use http::HeaderValue;

/// `X-Frame-Options` (HTML standard, section 7.6), the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameOptions {
    /// Nobody may frame the page.
    Deny,
    /// Pages of the same origin may.
    SameOrigin,
}

impl FrameOptions {
    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::SameOrigin => "SAMEORIGIN",
        }
    }
}

/// `Referrer-Policy` (W3C), ordered by what other origins learn: first nothing,
/// then the origin to secure ones, the origin to all, the address to secure ones,
/// the address to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferrerPolicy {
    /// Nothing, not even to ourselves.
    NoReferrer,
    /// Nothing, but the address to ourselves.
    SameOrigin,
    /// The origin, to secure origins.
    StrictOrigin,
    /// The same, and the address to ourselves.
    StrictOriginWhenCrossOrigin,
    /// The origin, to everybody.
    Origin,
    /// The same, and the address to ourselves.
    OriginWhenCrossOrigin,
    /// The address, to secure origins.
    NoReferrerWhenDowngrade,
    /// The address, to everybody.
    UnsafeUrl,
}

impl ReferrerPolicy {
    /// All, the strictest first.
    pub const ALL: [Self; 8] = [
        Self::NoReferrer,
        Self::SameOrigin,
        Self::StrictOrigin,
        Self::StrictOriginWhenCrossOrigin,
        Self::Origin,
        Self::OriginWhenCrossOrigin,
        Self::NoReferrerWhenDowngrade,
        Self::UnsafeUrl,
    ];

    /// The header's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReferrer => "no-referrer",
            Self::SameOrigin => "same-origin",
            Self::StrictOrigin => "strict-origin",
            Self::StrictOriginWhenCrossOrigin => "strict-origin-when-cross-origin",
            Self::Origin => "origin",
            Self::OriginWhenCrossOrigin => "origin-when-cross-origin",
            Self::NoReferrerWhenDowngrade => "no-referrer-when-downgrade",
            Self::UnsafeUrl => "unsafe-url",
        }
    }
}

/// `Permissions-Policy` (W3C): features, each with who may use it. Read more
/// strictly than browsers do: what they would ignore is never taken for a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionsPolicy {
    /// Feature and allowlist as written: `()`, `(self)`, `*` and so on.
    directives: Vec<(String, String)>,
    value: HeaderValue,
}

impl PermissionsPolicy {
    /// Reads a value such as `camera=(), geolocation=(self "https://a.example")`;
    /// `None` when it is none, or names a feature twice.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut directives: Vec<(String, String)> = Vec::new();
        for member in text.split(',') {
            let (feature, allowlist) = member.trim_matches([' ', '\t']).split_once('=')?;
            let is_new = directives.iter().all(|(known, _)| known != feature);
            if !is_feature(feature) || !is_allowlist(allowlist) || !is_new {
                return None;
            }
            directives.push((feature.to_owned(), allowlist.to_owned()));
        }
        Self::new(directives)
    }

    /// The header's value.
    #[must_use]
    pub const fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Both together: all features of either, each with the stricter allowlist; where
    /// neither is known to be, with this one's.
    #[must_use]
    pub fn stricter(&self, other: &Self) -> Option<Self> {
        let mut directives = self.directives.clone();
        for (feature, allowlist) in &other.directives {
            match directives.iter_mut().find(|(known, _)| known == feature) {
                Some((_, known)) if breadth(allowlist) < breadth(known) => {
                    allowlist.clone_into(known);
                }
                Some(_) => {}
                None => directives.push((feature.clone(), allowlist.clone())),
            }
        }
        Self::new(directives)
    }

    fn new(directives: Vec<(String, String)>) -> Option<Self> {
        let members =
            directives.iter().map(|(feature, allowlist)| format!("{feature}={allowlist}"));
        let value = HeaderValue::try_from(members.collect::<Vec<_>>().join(", ")).ok()?;
        Some(Self { directives, value })
    }
}

/// How many an allowlist lets: nobody, ourselves, some, all.
fn breadth(allowlist: &str) -> u8 {
    match allowlist {
        "()" => 0,
        "(self)" | "self" => 1,
        "*" | "(*)" => 3,
        _ => 2,
    }
}

fn is_feature(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.bytes().all(fits) && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// `*`, `self`, or a list of `self`, `src`, `*` and quoted origins. A comma in an origin,
/// parameters and escapes are allowed by the grammar and used by nobody.
fn is_allowlist(text: &str) -> bool {
    if ["*", "self"].contains(&text) {
        return true;
    }
    let Some(list) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else {
        return false;
    };
    let is_origin = |item: &str| {
        let inner = item.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"\\(),".contains(&byte);
        inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(fits))
    };
    list.split(' ')
        .filter(|item| !item.is_empty())
        .all(|item| ["self", "src", "*"].contains(&item) || is_origin(item))
}

#[cfg(test)]
mod tests {
    use super::PermissionsPolicy;

    fn parse(text: &str) -> PermissionsPolicy {
        PermissionsPolicy::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_permissions_policy_is_a_list_of_features() {
        for text in [
            "camera=()",
            "camera=*",
            "camera=self",
            "camera=(), geolocation=(self \"https://a.example:8443\")",
        ] {
            assert_eq!(parse(text).value(), text);
        }
        assert_eq!(parse("a=(),\tb=* ").value(), "a=(), b=*");
        for text in [
            "",
            "camera",
            "camera=",
            "camera=none",
            "camera 'none'",
            "Camera=()",
            "camera=(), camera=*",
            "camera=(",
            "camera=(self",
            "camera=(https://a.example)",
            "camera=(),",
            "camera=();report-to=x",
            "camera=(\"a\\\"b\")",
            "camera=(\"\u{e9}\")",
            "-camera=()",
        ] {
            assert_eq!(PermissionsPolicy::parse(text), None, "{text}");
        }
    }

    #[test]
    fn of_two_policies_the_stricter_allowlist_of_each_feature_stays() {
        for (ours, theirs, both) in [
            ("a=()", "a=(self)", "a=()"),
            ("a=(self)", "a=()", "a=()"),
            ("a=*", "a=(self)", "a=(self)"),
            ("a=(self \"https://x\")", "a=*", "a=(self \"https://x\")"),
            ("a=(self \"https://x\")", "a=(self \"https://y\")", "a=(self \"https://x\")"),
            ("a=()", "b=()", "a=(), b=()"),
            ("a=(), b=()", "c=*, a=*", "a=(), b=(), c=*"),
        ] {
            assert_eq!(
                parse(ours).stricter(&parse(theirs)).unwrap().value(),
                both,
                "{ours} {theirs}"
            );
        }
    }
}
