//! Paths of routes: literal segments, `{name}` for one, `**` for the rest.

use super::{Fault, Text};

/// The path of a route.
pub(in crate::config) const fn route_path() -> Text<String> {
    Text {
        allowed: "a path such as \"/orders/{id}\" or \"/api/**\": literal segments, {name} for \
                  one segment, ** last for the rest",
        pattern: Some("^/"),
        parse: |text| {
            let path = text.strip_prefix('/').ok_or_else(Fault::default)?;
            let segments: Vec<&str> = path.split('/').collect();
            let mut names = Vec::new();
            for (index, segment) in segments.iter().enumerate() {
                let last = index + 1 == segments.len();
                match name_of(segment) {
                    // Two of one name would be one name for two things.
                    Some(name) if names.contains(&name) => return Err(Fault::default()),
                    Some(name) => names.push(name),
                    None if *segment == "**" && last => {}
                    None if segment.is_empty() && last => {}
                    None if is_literal(segment) => {}
                    None => return Err(Fault::default()),
                }
            }
            Ok(text.to_owned())
        },
        show: String::clone,
    }
}

/// The path prefix of the gateway's own endpoints.
pub(in crate::config) const fn auth_prefix() -> Text<String> {
    Text {
        allowed: "a path of literal segments such as \"/auth\", without a slash at its end",
        pattern: Some("^/.*[^/]$"),
        parse: own_path,
        show: String::clone,
    }
}

/// A further path of the login.
pub(in crate::config) const fn login_alias() -> Text<String> {
    Text {
        allowed: "a path of literal segments such as \"/login\", without a slash at its end",
        pattern: Some("^/.*[^/]$"),
        parse: own_path,
        show: String::clone,
    }
}

/// A path where the gateway answers itself: it can be sent in one spelling only.
fn own_path(text: &str) -> Result<String, Fault> {
    let path = text.strip_prefix('/').ok_or_else(Fault::default)?;
    let plain = |segment: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        is_literal(segment) && segment.bytes().all(fits)
    };
    if path.split('/').all(plain) { Ok(text.to_owned()) } else { Err(Fault::default()) }
}

/// `id` of `{id}`.
fn name_of(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(fits)).then_some(name)
}

/// Whether a target could ever hold this segment: what every request with it
/// would be refused for must not stand in a rule.
fn is_literal(segment: &str) -> bool {
    let odd = |letter: char| letter.is_control() || "%?#\\;{}*".contains(letter);
    !segment.is_empty() && segment != "." && segment != ".." && !segment.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::{auth_prefix, route_path};
    use crate::config::kind::read;

    #[test]
    fn paths_are_literal_segments_names_and_a_last_rest() {
        for text in ["/", "/**", "/a", "/a/", "/a/{id}/b", "/a/{id}/**", "/a.b/c-d", "/über/b c"] {
            assert!(read(&route_path(), text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "**",
            "/**/a",
            "/a**",
            "/*",
            "/a/*/b",
            "/a//b",
            "/a/../b",
            "/./a",
            "/{}",
            "/{a b}",
            "/{id",
            "/x{id}",
            "/{id}/{id}",
            "/a%20b",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a\\b",
            "/a\nb",
            "//",
        ] {
            assert!(read(&route_path(), text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_prefix_is_plain() {
        assert!(read(&auth_prefix(), "/auth").is_ok() && read(&auth_prefix(), "/a/b").is_ok());
        for text in ["", "/", "auth", "/auth/", "/{a}", "/**", "/a b", "/a//b"] {
            assert!(read(&auth_prefix(), text).is_err(), "{text}");
        }
    }
}
