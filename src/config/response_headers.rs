//! What answers tell browsers, each switched off by "off". Knows nothing of what
//! an upstream says itself.

use http::HeaderValue;

use super::kind::{self, Choice};
use super::reader::Reader;
use super::{FrameOptions, Headers, Hsts, PermissionsPolicy, ReferrerPolicy};

/// Two years, all names below, and the browsers' built-in list.
const HSTS: &str = "max-age=63072000; includeSubDomains; preload";
/// What few services need, so that a page smuggled in does not get it either.
const PERMISSIONS: &str =
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The keys of `[headers]` that are about answers.
pub(super) struct ResponseHeaders {
    pub(super) hsts: Option<Hsts>,
    pub(super) content_type_options: bool,
    pub(super) frame_options: Option<FrameOptions>,
    pub(super) referrer_policy: Option<ReferrerPolicy>,
    pub(super) permissions_policy: Option<PermissionsPolicy>,
}

impl ResponseHeaders {
    /// Reads them.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let hsts = r.or(
            "hsts",
            kind::hsts(),
            Some(Hsts(HeaderValue::from_static(HSTS))),
            "The value of Strict-Transport-Security on every answer; \"off\" leaves it out.",
        );
        let content_type_options = r.or(
            "content_type_options",
            Choice { built: &[("nosniff", true), ("off", false)], unbuilt: &[] },
            true,
            "X-Content-Type-Options: browsers do not guess what a file is.",
        );
        let frame_options = r.or(
            "frame_options",
            Choice {
                built: &[
                    ("DENY", Some(FrameOptions::Deny)),
                    ("SAMEORIGIN", Some(FrameOptions::SameOrigin)),
                    ("off", None),
                ],
                unbuilt: &[],
            },
            Some(FrameOptions::Deny),
            "X-Frame-Options: whose pages may show ours in a frame.",
        );
        let referrer_policy = r.or(
            "referrer_policy",
            REFERRER_POLICY,
            Some(ReferrerPolicy::StrictOriginWhenCrossOrigin),
            "Referrer-Policy: what other sites learn of the page that a link stood on.",
        );
        let permissions_policy = r.or(
            "permissions_policy",
            kind::permissions_policy(),
            PermissionsPolicy::parse(PERMISSIONS),
            "Permissions-Policy: what pages may use of the device; \"off\" leaves it out.",
        );
        Self { hsts, content_type_options, frame_options, referrer_policy, permissions_policy }
    }
}

const REFERRER_POLICY: Choice<Option<ReferrerPolicy>> = Choice {
    built: &[
        ("no-referrer", Some(ReferrerPolicy::NoReferrer)),
        ("same-origin", Some(ReferrerPolicy::SameOrigin)),
        ("strict-origin", Some(ReferrerPolicy::StrictOrigin)),
        ("strict-origin-when-cross-origin", Some(ReferrerPolicy::StrictOriginWhenCrossOrigin)),
        ("origin", Some(ReferrerPolicy::Origin)),
        ("origin-when-cross-origin", Some(ReferrerPolicy::OriginWhenCrossOrigin)),
        ("no-referrer-when-downgrade", Some(ReferrerPolicy::NoReferrerWhenDowngrade)),
        ("unsafe-url", Some(ReferrerPolicy::UnsafeUrl)),
        ("off", None),
    ],
    unbuilt: &[],
};

impl Headers {
    /// Notes what is switched off.
    pub(super) fn note_answers(&self, r: &mut Reader<'_>) {
        let off = [
            ("hsts", self.hsts.is_none(), "browsers are not told to insist on https"),
            (
                "frame_options",
                self.frame_options.is_none(),
                "\"off\": other sites may frame pages and lead clicks astray",
            ),
            (
                "content_type_options",
                !self.content_type_options,
                "\"off\": browsers may take an uploaded file for a page",
            ),
        ];
        for (key, _, text) in off.into_iter().filter(|(_, is_off, _)| *is_off) {
            r.note(key, text);
        }
    }
}
