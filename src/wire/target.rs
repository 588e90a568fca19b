//! The request target, parsed once: policy, log and upstream use this one value,
//! so what is forwarded is exactly what was judged. A spelling that two parsers
//! could read differently is refused here. Knows no routes.

use http::uri::PathAndQuery;

/// A path and query that every HTTP parser reads alike. Only [`Target::parse`]
/// makes one; the bytes are never changed afterwards.
#[derive(Clone, Debug)]
pub struct Target {
    sent: PathAndQuery,
    /// The path decoded, when it holds escapes.
    decoded: Option<Box<str>>,
    has_path_parameters: bool,
}

impl Target {
    /// Checks a target.
    ///
    /// # Errors
    /// One sentence for the client when the target is ambiguous or malformed.
    pub fn parse(sent: &PathAndQuery) -> Result<Self, &'static str> {
        // `?x` alone has the path `/` for the http crate, but not on the upstream's wire.
        if !sent.as_str().starts_with('/') {
            return Err("The request target must be a path.");
        }
        let path = sent.path();
        let seen = scan(path)?;
        check_segments(path)?;
        sent.query().map_or(Ok(()), check_query)?;
        let decoded = if seen.escapes { Some(decode(path)?) } else { None };
        if decoded.as_deref().unwrap_or(path).chars().any(char::is_control) {
            return Err("The path holds a control character.");
        }
        Ok(Self { sent: sent.clone(), decoded, has_path_parameters: seen.parameters })
    }

    /// The path as sent.
    #[must_use]
    pub fn path(&self) -> &str {
        self.sent.path()
    }

    /// The path as routes see it: each escape decoded once. Bytes that are not
    /// UTF-8 stand as U+FFFD. For matching only, never to be sent anywhere.
    #[must_use]
    pub fn matched_path(&self) -> &str {
        self.decoded.as_deref().unwrap_or_else(|| self.sent.path())
    }

    /// The query as sent, without `?`; it never decides anything.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.sent.query()
    }

    /// Path and query as sent.
    #[must_use]
    pub const fn path_and_query(&self) -> &PathAndQuery {
        &self.sent
    }

    /// Whether a `;` stands in the path: only upstreams with `path_parameters` take it.
    #[must_use]
    pub const fn has_path_parameters(&self) -> bool {
        self.has_path_parameters
    }
}

/// What the path holds beyond plain text.
struct Seen {
    escapes: bool,
    parameters: bool,
}

fn scan(path: &str) -> Result<Seen, &'static str> {
    let mut seen = Seen { escapes: false, parameters: false };
    for byte in path.bytes() {
        match byte {
            b'%' => seen.escapes = true,
            b';' => seen.parameters = true,
            b'\\' => return Err("The path holds a backslash."),
            _ => {}
        }
    }
    Ok(seen)
}

fn check_segments(path: &str) -> Result<(), &'static str> {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        // Servers that know path parameters cut them off first: `/;x/a` and `/..;/a` move like `//` and `/..`.
        let name = segment.split(';').next().unwrap_or(segment);
        let is_last = segments.peek().is_none();
        match name {
            "" if is_last && segment.is_empty() => {}
            "" => return Err("The path holds an empty segment."),
            "." | ".." => return Err("The path holds a dot segment."),
            _ => {}
        }
    }
    Ok(())
}

fn check_query(query: &str) -> Result<(), &'static str> {
    let has_control = if query.is_ascii() {
        query.bytes().any(|byte| byte.is_ascii_control())
    } else {
        query.chars().any(char::is_control)
    };
    if has_control { Err("The query holds a control character.") } else { Ok(()) }
}

/// Decodes every escape once and refuses those that change what a path means.
fn decode(path: &str) -> Result<Box<str>, &'static str> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        let byte = escape(bytes.get(at + 1..)).ok_or("The path holds a broken escape.")?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                return Err("The path escapes a character that needs no escape.");
            }
            b'/' | b'\\' | b'#' | b'?' | b';' => {
                return Err("The path escapes a character that delimits.");
            }
            0..=0x1f | 0x7f => return Err("The path holds a control character."),
            b'%' if escape(bytes.get(at + 3..)).is_some() => {
                return Err("The path is escaped twice.");
            }
            _ => decoded.push(byte),
        }
        at += 3;
    }
    if decoded.windows(2).any(is_overlong) {
        return Err("The path escapes a character in an overlong way.");
    }
    Ok(String::from_utf8_lossy(&decoded).into())
}

/// The byte of the two hexadecimal digits at the start, if they stand there.
fn escape(digits: Option<&[u8]>) -> Option<u8> {
    let digit = |at: usize| char::from(*digits?.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Whether a lax UTF-8 decoder would read a plain character here, `%C0%AF` as `/`.
fn is_overlong(pair: &[u8]) -> bool {
    matches!(
        pair,
        [0xc0 | 0xc1, 0x80..=0xbf]
            | [0xe0, 0x80..=0x9f]
            | [0xf0, 0x80..=0x8f]
            | [0xf8, 0x80..=0x87]
            | [0xfc, 0x80..=0x83]
    )
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use proptest::prelude::{any, proptest};

    use super::Target;

    fn parse(text: &str) -> Result<Target, &'static str> {
        let sent: PathAndQuery = text.parse().unwrap();
        Target::parse(&sent)
    }

    #[test]
    fn an_ambiguous_path_is_refused() {
        for path in [
            "/%",
            "/%4",
            "/%g0",
            "/%4g",
            "/a%",
            "/%41",
            "/%7e",
            "/%2D",
            "/%2e%2e/",
            "/%5f",
            "/%30",
            "/%2f",
            "/a%2Fb",
            "/%5c",
            "/%23",
            "/%3f",
            "/%3b",
            "/%3B",
            "/%00",
            "/%0a",
            "/%1F",
            "/%7f",
            "/%2541",
            "/%252f",
            "/%2525aa",
            "/.",
            "/..",
            "/./a",
            "/a/..",
            "/a/../b",
            "/a/.",
            "//",
            "//a",
            "/a//",
            "/a//b",
            "/a\\b",
            "/\\",
            "*",
            "?a",
            "/;",
            "/;x/a",
            "/a/..;/b",
            "/a/.;x",
            "/a/;",
            "/%c2%85",
            "/\u{85}",
            "/%c0%af",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/%c0%ae%c0%ae/a",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn an_unambiguous_path_passes_as_sent_and_matches_decoded() {
        for (sent, matched) in [
            ("/", "/"),
            ("/a/b.c/~d_-/", "/a/b.c/~d_-/"),
            ("/...", "/..."),
            ("/caf%C3%A9", "/café"),
            ("/caf%c3%a9", "/café"),
            ("/café", "/café"),
            ("/a%20b%3A%40", "/a b:@"),
            ("/100%25", "/100%"),
            ("/100%25/a", "/100%/a"),
            ("/%25zz", "/%zz"),
            ("/%E9", "/\u{fffd}"),
            ("/a;v=1", "/a;v=1"),
            ("/{a}", "/{a}"),
        ] {
            let target = parse(sent).unwrap();
            assert_eq!((target.path(), target.matched_path()), (sent, matched));
        }
        assert!(parse("/a;v=1/b").unwrap().has_path_parameters());
        assert!(!parse("/a?b;c").unwrap().has_path_parameters());
    }

    #[test]
    fn the_query_passes_byte_for_byte() {
        let sent = "/a?%2e%2e/%zz//;%00&b=%41\\é?";
        let target = parse(sent).unwrap();
        assert_eq!(target.path_and_query().as_str(), sent);
        assert_eq!(target.query(), sent.strip_prefix("/a?"));
        assert!(parse("/a?\u{85}").is_err());
    }

    #[test]
    fn a_path_without_escapes_is_not_copied() {
        let target = parse("/a/b?c").unwrap();
        assert_eq!(target.path().as_ptr(), target.matched_path().as_ptr());
    }

    proptest! {
        #[test]
        fn no_target_makes_the_parser_panic(bytes in any::<Vec<u8>>(), text in "/[/%.;a0-9A-Fé]{0,12}") {
            for sent in [PathAndQuery::try_from(&bytes[..]), text.parse()].into_iter().flatten() {
                if let Ok(target) = Target::parse(&sent) {
                    assert_eq!(target.path(), sent.path());
                    assert!(!target.matched_path().contains("//"));
                    assert!(!target.matched_path().contains('\\'));
                    assert!(!target.matched_path().split('/').any(|s| s == "." || s == ".."));
                }
            }
        }
    }
}
