//! `[headers]`: how the upstream is told who is calling, and what answers tell
//! browsers.

use http::{HeaderName, HeaderValue};

use super::kind::{self, Choice};
use super::reader::Reader;
use super::response_headers::ResponseHeaders;
use super::{FrameOptions, PermissionsPolicy, ReferrerPolicy};

/// `[headers]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Carries the subject.
    pub user: HeaderName,
    /// Carries the role.
    pub role: HeaderName,
    /// Carries the reference that an access code was given out with.
    pub reference: HeaderName,
    /// A family of headers that is added too.
    pub preset: HeaderPreset,
    /// `Strict-Transport-Security`; `None` switches it off.
    pub hsts: Option<Hsts>,
    /// Whether `X-Content-Type-Options: nosniff` is said.
    pub content_type_options: bool,
    /// `X-Frame-Options`; `None` switches it off.
    pub frame_options: Option<FrameOptions>,
    /// `Referrer-Policy`; `None` switches it off.
    pub referrer_policy: Option<ReferrerPolicy>,
    /// `Permissions-Policy`; `None` switches it off.
    pub permissions_policy: Option<PermissionsPolicy>,
}

/// The value of `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts(pub HeaderValue);

/// Names that other gateways made common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderPreset {
    /// Only `headers.user` and `headers.role`.
    None,
    /// `Remote-User`, `Remote-Groups` (Authelia).
    Remote,
    /// `X-Forwarded-User`, `X-Forwarded-Groups` (oauth2-proxy).
    Forwarded,
    /// `X-Auth-Request-User`, `X-Auth-Request-Groups` (oauth2-proxy with nginx).
    AuthRequest,
}

impl HeaderPreset {
    /// The names that carry subject and role, if any.
    #[must_use]
    pub const fn names(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::None => None,
            Self::Remote => Some(("remote-user", "remote-groups")),
            Self::Forwarded => Some(("x-forwarded-user", "x-forwarded-groups")),
            Self::AuthRequest => Some(("x-auth-request-user", "x-auth-request-groups")),
        }
    }
}

impl Headers {
    /// Reads `[headers]`.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let user = r.or(
            "user",
            kind::header_name(),
            HeaderName::from_static("x-auth-user"),
            "The header that tells the upstream who is calling: the subject.",
        );
        let role = r.or(
            "role",
            kind::header_name(),
            HeaderName::from_static("x-auth-role"),
            "The header that tells the upstream the caller's role.",
        );
        let reference = r.or(
            "reference",
            kind::header_name(),
            HeaderName::from_static("x-auth-reference"),
            "The header that tells the upstream the reference that an access code was given out \
             with.",
        );
        let preset = r.or(
            "preset",
            Choice {
                built: &[
                    ("none", HeaderPreset::None),
                    ("remote", HeaderPreset::Remote),
                    ("forwarded", HeaderPreset::Forwarded),
                    ("auth_request", HeaderPreset::AuthRequest),
                ],
                unbuilt: &[],
            },
            HeaderPreset::None,
            "A family of headers that is added too: Remote-User and Remote-Groups, \
             X-Forwarded-User and -Groups, or X-Auth-Request-User and -Groups.",
        );
        let ResponseHeaders {
            hsts,
            content_type_options,
            frame_options,
            referrer_policy,
            permissions_policy,
        } = ResponseHeaders::read(r);
        let headers = Self {
            user,
            role,
            reference,
            preset,
            hsts,
            content_type_options,
            frame_options,
            referrer_policy,
            permissions_policy,
        };
        headers.check_distinct(r);
        if r.is_clean() {
            headers.note_answers(r);
        }
        headers
    }

    /// The names that this gateway alone may set, each folded as header stripping
    /// compares them.
    pub(super) fn managed(&self) -> Vec<String> {
        let preset = self.preset.names().into_iter().flat_map(|(user, role)| [user, role]);
        let names = [&self.user, &self.role, &self.reference].map(HeaderName::as_str);
        let names = names.into_iter().chain(preset);
        names.map(fold).collect()
    }

    /// One name must not carry two of subject, role and reference.
    fn check_distinct(&self, r: &mut Reader<'_>) {
        if !r.is_clean() {
            return;
        }
        let (user, role) = (fold(self.user.as_str()), fold(self.role.as_str()));
        let preset = self.preset.names().map(|(user, role)| (fold(user), fold(role)));
        let reference = fold(self.reference.as_str());
        let taken = preset.iter().flat_map(|(user, role)| [user, role]).chain([&user, &role]);
        if taken.into_iter().any(|name| *name == reference) {
            let found = format!("{:?}, which says who is calling", self.reference.as_str());
            r.problem("reference", found, "a name of its own".to_owned());
        }
        if user == role {
            let found = format!("{:?}, like headers.user", self.role.as_str());
            r.problem("role", found, "another name than headers.user".to_owned());
        } else if preset.as_ref().is_some_and(|(_, preset_role)| *preset_role == user) {
            let found = format!("{:?}, the preset's name for the role", self.user.as_str());
            r.problem("user", found, "a name of its own".to_owned());
        } else if preset.is_some_and(|(preset_user, _)| preset_user == role) {
            let found = format!("{:?}, the preset's name for the user", self.role.as_str());
            r.problem("role", found, "a name of its own".to_owned());
        }
    }
}

/// A name without case and without what is neither letter nor digit.
pub(super) fn fold(name: &str) -> String {
    let kept = name.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|letter| letter.to_ascii_lowercase()).collect()
}
