//! What every answer tells browsers: made once a worker, added where nothing
//! stands; what an upstream says stays only where it is as strict. Knows neither
//! routes nor users.

use http::header::{
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{FrameOptions, Headers, PermissionsPolicy, ReferrerPolicy};
use crate::wire::strictness;

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The configured headers of answers.
pub(crate) struct Protection {
    values: Vec<(HeaderName, HeaderValue)>,
    hsts: Option<HeaderValue>,
    content_type_options: bool,
    frame_options: Option<FrameOptions>,
    referrer_policy: Option<ReferrerPolicy>,
    permissions_policy: Option<PermissionsPolicy>,
}

impl Protection {
    /// As configured.
    pub(crate) fn new(headers: &Headers) -> Self {
        let hsts = headers.hsts.as_ref().map(|hsts| hsts.0.clone());
        let permissions = headers.permissions_policy.clone();
        let options = [
            (STRICT_TRANSPORT_SECURITY, hsts.clone()),
            (X_CONTENT_TYPE_OPTIONS, headers.content_type_options.then_some(NOSNIFF)),
            (
                X_FRAME_OPTIONS,
                headers.frame_options.map(|it| HeaderValue::from_static(it.as_str())),
            ),
            (
                REFERRER_POLICY,
                headers.referrer_policy.map(|it| HeaderValue::from_static(it.as_str())),
            ),
            (PERMISSIONS_POLICY, permissions.as_ref().map(|policy| policy.value().clone())),
        ];
        let values = options.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Self {
            values: values.collect(),
            hsts,
            content_type_options: headers.content_type_options,
            frame_options: headers.frame_options,
            referrer_policy: headers.referrer_policy,
            permissions_policy: permissions,
        }
    }

    /// Adds what an answer does not say; our own pages say some of it themselves.
    pub(crate) fn complete(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.values {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }

    /// Takes away what an upstream says more laxly, so that `complete` says it. What
    /// is switched off passes as it is.
    pub(crate) fn tighten(&self, headers: &mut HeaderMap) {
        let mut keep = |name: &HeaderName, is_strict: &dyn Fn(&HeaderMap) -> bool| {
            if headers.contains_key(name) && !is_strict(headers) {
                headers.remove(name);
            }
        };
        if let Some(ours) = &self.hsts {
            keep(&STRICT_TRANSPORT_SECURITY, &|headers| strictness::hsts(headers, ours));
        }
        if self.content_type_options {
            keep(&X_CONTENT_TYPE_OPTIONS, &strictness::is_nosniff);
        }
        if let Some(ours) = self.frame_options {
            keep(&X_FRAME_OPTIONS, &|headers| {
                strictness::frame_options(headers).is_some_and(|theirs| theirs <= ours)
            });
        }
        if let Some(ours) = self.referrer_policy {
            keep(&REFERRER_POLICY, &|headers| {
                strictness::referrer_policy(headers).is_some_and(|theirs| theirs <= ours)
            });
        }
        if let Some(ours) = &self.permissions_policy
            && headers.contains_key(PERMISSIONS_POLICY)
        {
            let theirs = strictness::permissions_policy(headers, &PERMISSIONS_POLICY);
            let both = theirs.and_then(|theirs| ours.stricter(&theirs));
            headers.insert(PERMISSIONS_POLICY, both.as_ref().unwrap_or(ours).value().clone());
        }
    }
}
