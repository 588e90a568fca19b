//! Where to go after a login: a path on our own origin, parsed, never an address
//! that somebody else could choose. Knows no pages.

use http::uri::PathAndQuery;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::wire::target::Target;

/// Longest return path that is taken, in bytes.
const BYTES_MAX: usize = 2048;

/// Parses the parameter `rd`, decoded. The outcome begins with exactly one slash,
/// is ASCII and can stand in `Location`; `None` for everything that a browser
/// could take as another origin, and for every path that the gateway refuses.
#[must_use]
pub fn parse(text: &str) -> Option<String> {
    if text.len() > BYTES_MAX || !text.starts_with('/') || text.contains(['\\', '#']) {
        return None;
    }
    let target = Target::parse(&text.parse::<PathAndQuery>().ok()?).ok()?;
    // Escapes what is not ASCII and leaves the rest as it is.
    Some(utf8_percent_encode(target.path_and_query().as_str(), CONTROLS).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::parse;

    #[test]
    fn a_path_on_our_own_origin_is_kept() {
        for path in ["/", "/a/b?c=d&e=%2F", "/a?rd=https://b.example//", "/caf%C3%A9"] {
            assert_eq!(parse(path).as_deref(), Some(path));
        }
        assert_eq!(parse("/café").as_deref(), Some("/caf%C3%A9"));
    }

    #[test]
    fn another_origin_is_never_a_return_path() {
        for text in [
            "",
            "a",
            "*",
            "?a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            " /a",
            "/a b",
            "https://evil.example/",
            "https:/a",
            "javascript:alert(1)",
            "/%2f%2fevil.example",
            "/%5cevil.example",
            "/.//evil.example",
            "/..//evil.example",
            "/%09/evil.example",
            "/a\r\nSet-Cookie: b=c",
            "/a?b\\c",
            "/\u{0}",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&format!("/{}", "a".repeat(3000))), None);
    }

    proptest! {
        #[test]
        fn whatever_is_kept_is_one_slash_and_plain(text in "[/\\\\%a-f0-9:@.?\t]{0,12}|.*") {
            if let Some(path) = parse(&text) {
                assert!(path.starts_with('/') && !path.starts_with("//"));
                assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
            }
        }
    }
}
