//! `[cookie]`: names and attributes of our cookies.

use super::kind::{self, Choice};
use super::reader::Reader;

/// `[cookie]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The cookie that the token is bound to.
    pub context_name: String,
    /// The cookie that carries the token.
    pub token_name: String,
    /// The cookie of a device that logged in before.
    pub device_name: String,
    /// `SameSite` of all of them.
    pub same_site: SameSite,
}

/// `SameSite` (RFC 6265bis).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never on requests from another site.
    Strict,
    /// On top-level navigations too.
    Lax,
    /// Always.
    None,
}

impl SameSite {
    /// The attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

impl Cookie {
    /// Reads `[cookie]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let mut name = |key, default: &str, doc| {
            let name = r.or(key, kind::cookie_name(), default.to_owned(), doc);
            (key, name)
        };
        let names = [
            name(
                "context_name",
                "__Host-bindgate-context",
                "The cookie that the token is bound to.",
            ),
            name("token_name", "__Host-bindgate-token", "The cookie that carries the token."),
            name(
                "device_name",
                "__Host-bindgate-device",
                "The cookie of a device that logged in before.",
            ),
        ];
        let same_site = r.or(
            "same_site",
            Choice {
                built: &[
                    ("strict", SameSite::Strict),
                    ("lax", SameSite::Lax),
                    ("none", SameSite::None),
                ],
                unbuilt: &[],
            },
            SameSite::Strict,
            "SameSite of all of them.",
        );
        check_names(r, &names);
        match same_site {
            SameSite::Strict => {}
            SameSite::Lax => {
                r.note("same_site", "\"lax\": links from other sites carry the cookies");
            }
            SameSite::None => r.note(
                "same_site",
                "\"none\": every request that another site causes carries the cookies",
            ),
        }
        let [(_, context_name), (_, token_name), (_, device_name)] = names;
        Self { context_name, token_name, device_name, same_site }
    }
}

fn check_names(r: &mut Reader<'_>, names: &[(&'static str, String)]) {
    if !r.is_clean() {
        return;
    }
    for (index, (key, name)) in names.iter().enumerate() {
        let same = |earlier: &&(&str, String)| earlier.1.eq_ignore_ascii_case(name);
        if let Some((earlier, _)) = names[..index].iter().find(same) {
            let found = format!("{name:?}, like cookie.{earlier}");
            r.problem(key, found, "a name of its own".to_owned());
        }
        // Without the prefix a neighbouring name of the domain, or plain HTTP, can set it.
        if name.get(..7).is_none_or(|prefix| !prefix.eq_ignore_ascii_case("__host-")) {
            r.note(
                key,
                "without the prefix __Host- other hosts of the domain can plant this cookie",
            );
        }
    }
}
