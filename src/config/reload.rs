//! What a reload cannot change.

use super::Config;

impl Config {
    /// The keys that differ and take effect only at a start; when there are any, a
    /// reload applies nothing.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let keys = [
            ("server.listen", self.server.listen == new.server.listen),
            ("server.workers", self.server.workers == new.server.workers),
            ("server.jwks_listen", self.jwks_address() == new.jwks_address()),
            ("telemetry.listen", self.telemetry.listen == new.telemetry.listen),
            ("store", self.store == new.store),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
