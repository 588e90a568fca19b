//! The gateway's own pages: login, the step in between for links from other
//! sites, and errors. They need no script and load nothing, from nowhere. Knows
//! what stands on a page, not when it is shown.

use askama::Template;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A page could not be written.
pub type PageError = askama::Error;

/// The style sheet of all pages.
pub(super) const STYLE: &str = include_str!("page.css");

/// The hash is that of `page.css`; a test says what it must be. `form-action`
/// holds redirects after the post to this origin too, which is where they lead.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; \
     style-src 'sha256-8R+mWKgHUmd/havmh/x9HIahM3q5V2fmODE+kOmEEvI='; \
     form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);

/// Headers of every page of ours. The referrer policy is not `no-referrer`: that
/// would turn the `Origin` of the form's post, our CSRF proof, into `null`.
#[must_use]
pub const fn headers() -> [(HeaderName, HeaderValue); 6] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ]
}

/// The login page.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Heading and title, from `login_page.title`.
    pub title: &'a str,
    /// A sentence below it, from `login_page.notice`; may be empty.
    pub notice: &'a str,
    /// Where the form is posted.
    pub action: &'a str,
    /// Where the login leads: the field `rd`.
    pub return_path: &'a str,
    /// The name typed before, when the page is shown again; else empty.
    pub name: &'a str,
    /// Whether emergency accounts work now, which must give a reason.
    pub asks_reason: bool,
    /// Why the login failed: a refusal's public sentence.
    pub error: Option<&'a str>,
}

impl Login<'_> {
    /// The page.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn html(&self) -> Result<String, PageError> {
        let &Self { title, notice, action, return_path, name, asks_reason, error } = self;
        let style = STYLE;
        LoginTemplate { style, title, notice, action, return_path, name, asks_reason, error }
            .render()
    }
}

/// The page that asks for a new password, where the old one must be changed.
#[derive(Clone, Copy)]
pub struct ChangePassword<'a> {
    /// Heading and title, from `login_page.title`.
    pub title: &'a str,
    /// Where the form is posted.
    pub action: &'a str,
    /// The login page's path, for instance `/auth/`.
    pub login_path: &'a str,
    /// Where the login leads: the field `rd`.
    pub return_path: &'a str,
    /// The name that was typed, which is posted again as it is.
    pub name: &'a str,
    /// Fewest characters of a new password.
    pub length_min: usize,
    /// Why the page is shown, or shown again: a refusal's public sentence.
    pub error: &'a str,
}

impl ChangePassword<'_> {
    /// The page.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn html(&self) -> Result<String, PageError> {
        let &Self { title, action, login_path, return_path, name, length_min, error } = self;
        let return_parameter = utf8_percent_encode(return_path, NOT_UNRESERVED);
        let login_address = &format!("{login_path}?rd={return_parameter}");
        ChangeTemplate {
            style: STYLE,
            title,
            action,
            login_address,
            return_path,
            name,
            length_min,
            error,
        }
        .render()
    }
}

/// The query parameter that marks the address of [`Again`], so that it is shown once.
pub const AGAIN: &str = "again";

/// The page in between: a browser that follows a link from another site brings no
/// `Strict` cookie, so it is sent once more to the same page by our own origin.
#[derive(Clone, Copy, Debug)]
pub struct Again<'a> {
    /// Heading and title, from `login_page.title`.
    pub title: &'a str,
    /// The login page's path, for instance `/auth/`.
    pub login_path: &'a str,
    /// Where the login leads.
    pub return_path: &'a str,
}

impl Again<'_> {
    /// The page.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn html(&self) -> Result<String, PageError> {
        AgainTemplate { style: STYLE, title: self.title, address: &self.address() }.render()
    }

    /// Where the page leads: the login page, marked.
    fn address(&self) -> String {
        let return_path = utf8_percent_encode(self.return_path, NOT_UNRESERVED);
        format!("{}?rd={return_path}&{AGAIN}=1", self.login_path)
    }
}

/// All but the unreserved characters of RFC 3986 section 2.3.
const NOT_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Template)]
#[template(path = "gateway/login.html")]
struct LoginTemplate<'a> {
    style: &'a str,
    title: &'a str,
    notice: &'a str,
    action: &'a str,
    return_path: &'a str,
    name: &'a str,
    asks_reason: bool,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "gateway/change.html")]
struct ChangeTemplate<'a> {
    style: &'a str,
    title: &'a str,
    action: &'a str,
    login_address: &'a str,
    return_path: &'a str,
    name: &'a str,
    length_min: usize,
    error: &'a str,
}

#[derive(Template)]
#[template(path = "gateway/again.html")]
struct AgainTemplate<'a> {
    style: &'a str,
    title: &'a str,
    address: &'a str,
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::{any, proptest};
    use sha2::{Digest as _, Sha256};

    use super::{Again, ChangePassword, Login, POLICY, STYLE, headers};

    fn login<'a>(text: &'a str, error: Option<&'a str>) -> String {
        let page = Login {
            title: text,
            notice: text,
            action: "/auth/login",
            return_path: text,
            name: text,
            asks_reason: error.is_some(),
            error,
        };
        page.html().unwrap()
    }

    fn change(text: &str) -> String {
        let page = ChangePassword {
            title: text,
            action: "/auth/password",
            login_path: "/auth/",
            return_path: text,
            name: text,
            length_min: 15,
            error: text,
        };
        page.html().unwrap()
    }

    fn again(text: &str) -> String {
        Again { title: text, login_path: "/auth/", return_path: text }.html().unwrap()
    }

    #[test]
    fn the_policy_allows_our_style_and_nothing_else() {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        let policy = POLICY.to_str().unwrap().to_owned();
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "must be sha256-{hash}");
        for needed in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(needed), "{needed}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"));
    }

    #[test]
    fn no_page_needs_script_or_anything_from_outside() {
        for page in [login("x", None), again("/x"), change("x")] {
            assert!(page.contains(&format!("<style>{STYLE}</style>")), "as hashed");
            for forbidden in ["<script", "script:", "style=", "//", "src=", "@import", "url("] {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
        }
    }

    #[test]
    fn our_pages_never_send_no_referrer() {
        let policy = headers().into_iter().find(|(name, _)| name == "referrer-policy").unwrap().1;
        assert_eq!(policy, "same-origin");
    }

    #[test]
    fn the_form_tells_browsers_and_screen_readers_what_is_what() {
        let page = login("", None);
        for needed in [
            r#"<html lang="en">"#,
            r#"<label for="username">"#,
            r#"<label for="password">"#,
            r#"autocomplete="username""#,
            r#"autocomplete="current-password""#,
            r#"method="post" action="/auth/login""#,
            r#"name="viewport""#,
        ] {
            assert!(page.contains(needed), "{needed}");
        }
        assert!(!page.contains("role=\"alert\"") && !page.contains("aria-describedby"));
    }

    #[test]
    fn a_failed_login_is_announced_and_described() {
        let page = login("", Some("The user name or the password is not right."));
        assert!(page.contains("<title>Error: "));
        assert!(page.contains(r#"<p class="error" id="error" role="alert">The user name or "#));
        assert_eq!(page.matches(r#"aria-describedby="error""#).count(), 2);
    }

    #[test]
    fn the_form_for_a_new_password_tells_password_managers_which_is_which() {
        let page = change("x");
        for needed in [
            r#"<label for="old">"#,
            r#"<label for="new">"#,
            r#"<label for="again">"#,
            r#"<input id="username" name="username" type="text" value="x" autocomplete="username" readonly>"#,
            r#"method="post" action="/auth/password""#,
            r#"<p class="error" id="error" role="alert">"#,
            r#"id="hint">At least 15 characters"#,
        ] {
            assert!(page.contains(needed), "{needed}");
        }
        assert_eq!(page.matches(r#"autocomplete="new-password""#).count(), 2);
        assert_eq!(page.matches(r#"autocomplete="current-password""#).count(), 1);
    }

    #[test]
    fn a_reason_is_asked_for_only_where_one_is_needed() {
        let (usual, emergency) = (login("", None), login("", Some("x")));
        assert!(!usual.contains("reason"));
        for needed in [r#"<label for="reason">"#, r#"name="reason" type="text" maxlength="256""#] {
            assert!(emergency.contains(needed), "{needed}");
        }
    }

    #[test]
    fn the_step_in_between_leads_to_itself_once() {
        let page = again("/a?b=1&c=\"<x>");
        let address = "/auth/?rd=%2Fa%3Fb%3D1%26c%3D%22%3Cx%3E&#38;again=1";
        assert!(page.contains(&format!(r#"http-equiv="refresh" content="0; url={address}""#)));
        assert!(page.contains(&format!(r#"href="{address}""#)), "for browsers that do not refresh");
    }

    proptest! {
        #[test]
        fn nothing_from_a_request_appears_unescaped(text in any::<String>()) {
            let text = format!("{text}\"'<script>&");
            let renderings: [fn(&str) -> String; 3] = [|it| login(it, Some(it)), again, change];
            for render in renderings {
                let (page, plain) = (render(&text), render("x"));
                for markup in ['<', '>', '"', '\''] {
                    // All markup comes from the template.
                    assert_eq!(page.matches(markup).count(), plain.matches(markup).count());
                }
            }
        }
    }
}
