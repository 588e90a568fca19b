//! A route's path: literal segments, `{name}` for one segment, `**` for the rest.
//! No regular expressions. Knows neither methods nor roles.

use percent_encoding::percent_decode_str;

/// A path pattern. Two patterns that match the same paths are equal, whatever
/// their parameters are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    end: End,
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// Any one segment.
    Parameter,
}

/// What follows the last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Here,
    /// One slash.
    Slash,
    /// Nothing, a slash, or anything below.
    Rest,
}

impl Pattern {
    /// Reads a configured path, which the loader has checked. Escapes in it are
    /// decoded, as those of a target are.
    pub(super) fn of(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (path, end) = if path == "**" {
            (None, End::Rest)
        } else if let Some(path) = path.strip_suffix("/**") {
            (Some(path), End::Rest)
        } else if path.is_empty() {
            (None, End::Slash)
        } else if let Some(path) = path.strip_suffix('/') {
            (Some(path), End::Slash)
        } else {
            (Some(path), End::Here)
        };
        let segments = path.into_iter().flat_map(|path| path.split('/')).map(segment).collect();
        Self { segments, end }
    }

    /// Its segments, without what follows them.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What follows its segments.
    pub(super) const fn end(&self) -> End {
        self.end
    }

    /// Whether it matches a decoded path, letter by letter.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut sent = path.strip_prefix('/').unwrap_or(path).split('/');
        for expected in &self.segments {
            let fits = match (expected, sent.next()) {
                (Segment::Literal(text), Some(segment)) => **text == *segment,
                (Segment::Parameter, Some(segment)) => !segment.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        match self.end {
            End::Here => sent.next().is_none(),
            End::Slash => sent.next() == Some("") && sent.next().is_none(),
            End::Rest => true,
        }
    }
}

fn segment(text: &str) -> Segment {
    if text.len() > 2 && text.starts_with('{') && text.ends_with('}') {
        return Segment::Parameter;
    }
    let decoded = percent_decode_str(text).decode_utf8();
    Segment::Literal(decoded.map_or_else(|_| text.into(), |text| text.as_ref().into()))
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_matches_letter_by_letter() {
        for (pattern, matching, other) in [
            ("/", &["/"][..], &["/a"][..]),
            ("/a", &["/a"], &["/", "/A", "/a/", "/a/b", "/ab", "/b"]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/a/{x}", &["/a/b", "/a/ü ;"], &["/a", "/a/", "/a/b/", "/a/b/c", "/A/b"]),
            ("/{x}/b", &["/a/b"], &["/a/B", "/a"]),
            ("/**", &["/", "/a", "/a/b/"], &[]),
            ("/a/**", &["/a", "/a/", "/a/b", "/a/b/c/"], &["/", "/ab", "/A/b"]),
            ("/a/{x}/**", &["/a/b", "/a/b/", "/a/b/c"], &["/a", "/a/"]),
            ("/caf%C3%A9", &["/café"], &["/caf%C3%A9", "/cafe"]),
            ("/{}", &["/{}"], &["/a"]),
        ] {
            for path in matching {
                assert!(Pattern::of(pattern).matches(path), "{pattern} {path}");
            }
            for path in other {
                assert!(!Pattern::of(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn the_name_of_a_parameter_makes_no_other_pattern() {
        assert_eq!(Pattern::of("/a/{x}"), Pattern::of("/a/{y}"));
        assert_ne!(Pattern::of("/a"), Pattern::of("/a/"));
    }
}
