//! The page where people give out access codes: one button, the code in large grouped
//! digits, and the time that it has left. Needs no script. Knows what stands on the
//! page, not when it is shown.

use std::time::Duration;

use askama::Template;

use crate::access_code::Issued;
use crate::gateway::page::{PageError, STYLE};

/// The page.
pub(super) struct Codes<'a> {
    /// The site's title, from `login_page.title`.
    pub(super) title: &'a str,
    /// Where the form is posted.
    pub(super) action: &'a str,
    /// The code that was just given out.
    pub(super) issued: Option<&'a Issued>,
    /// Why there is none: a refusal's public sentence.
    pub(super) error: Option<&'a str>,
}

impl Codes<'_> {
    /// The page.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(super) fn html(&self) -> Result<String, PageError> {
        let &Self { title, action, issued, error } = self;
        let shown = issued.map(|issued| Shown {
            groups: issued.code.groups(),
            left: time_left(issued.lifetime),
            // The hour and the minute of RFC 3339.
            until: issued.until.rfc3339().chars().skip(11).take(5).collect(),
        });
        CodesTemplate { style: STYLE, title, action, shown, error }.render()
    }
}

/// A time in words: whole minutes, or seconds below two of them.
fn time_left(left: Duration) -> String {
    let seconds = left.as_secs();
    if seconds < 120 { format!("{seconds} seconds") } else { format!("{} minutes", seconds / 60) }
}

struct Shown<'a> {
    groups: Vec<&'a str>,
    left: String,
    until: String,
}

#[derive(Template)]
#[template(path = "gateway/code_page.html")]
struct CodesTemplate<'a> {
    style: &'a str,
    title: &'a str,
    action: &'a str,
    shown: Option<Shown<'a>>,
    error: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Codes, STYLE};
    use crate::access_code::{Code, Issued};
    use crate::ambient::Timestamp;
    use crate::identity::Subject;

    fn page(issued: Option<&Issued>, error: Option<&str>) -> String {
        Codes { title: "T<", action: "/auth/access-codes", issued, error }.html().unwrap()
    }

    #[test]
    fn the_page_shows_the_code_in_groups_with_the_time_left() {
        let issued = Issued {
            code: Code::parse("012375").unwrap(),
            subject: Subject::new("access-code:x"),
            lifetime: Duration::from_hours(1),
            until: Timestamp::from_seconds(3600 * 14 + 300),
        };
        let page = page(Some(&issued), None);
        assert!(page.contains("<span>012</span> <span>375</span>"), "{page}");
        assert!(page.contains("Good for 60 minutes, until 14:05 UTC."), "{page}");
        assert!(!page.contains("access-code:x") && !page.contains("T<"), "{page}");
        assert_eq!(page.matches("<button").count(), 1);
    }

    #[test]
    fn the_page_of_codes_needs_no_script_nor_anything_from_outside() {
        for page in [page(None, None), page(None, Some("Too many attempts; wait."))] {
            assert!(page.contains(&format!("<style>{STYLE}</style>")), "as hashed");
            for forbidden in ["<script", "script:", "style=", "//", "src=", "@import", "url("] {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
        }
    }
}
