//! The cookie of a device that logged in before. It proves nothing but that: no
//! request is let through for it, and it is none of the cookies that the proof
//! against CSRF or the refusal of plain HTTP looks for.

use http::HeaderMap;

use crate::gateway::exchange::Exchange;
use crate::gateway::worker::Loaded;
use crate::secret::Secret;
use crate::throttle::DEVICE_LIFETIME;
use crate::wire::cookie::{self, Found};

/// Longer values are none of ours.
const VALUE_BYTES_MAX: usize = 64;

/// The value that a browser brought, if it brought exactly one.
pub(super) fn brought(headers: &HeaderMap, name: &str) -> Option<Secret<String>> {
    let Found::One(value) = cookie::find(headers, name) else { return None };
    let text = std::str::from_utf8(value).ok()?;
    (text.len() <= VALUE_BYTES_MAX).then(|| Secret::new(text.to_owned()))
}

impl Loaded {
    /// Sets a new value.
    pub(super) fn set_device_cookie(&self, exchange: &mut Exchange, value: &Secret<String>) {
        let config = &self.snapshot.config.cookie;
        let (name, same_site) = (&config.device_name, config.same_site);
        let header = cookie::set_cookie(name, value.expose(), same_site, Some(DEVICE_LIFETIME));
        exchange.set_cookies.extend(header);
    }
}
