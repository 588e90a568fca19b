//! All metrics of the process, in one registry that is passed in. Label values
//! come from closed sets and from configuration, never from a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
pub use prometheus::{Histogram, IntCounter, IntGauge};

/// The metrics could not be registered or written.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// Seconds, from a memory look-up to a slow upstream.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

macro_rules! metrics {
    ($(
        $(#[doc = $doc:literal])+
        $kind:ident $field:ident $name:literal [$($label:ident),*];
    )+) => {
        /// Every metric; each method resolves one child, to be kept where it is used often.
        #[derive(Clone)]
        pub struct Metrics {
            registry: Registry,
            directory_servers: Arc<Mutex<HashMap<String, usize>>>,
            $($field: metrics!(@vec $kind),)+
        }

        impl Metrics {
            /// Registers everything.
            ///
            /// # Errors
            /// When two metrics share a name.
            pub fn new() -> Result<Self, MetricsError> {
                let registry = Registry::new();
                $(let $field = register(
                    &registry,
                    metrics!(@new $kind $name, concat!($($doc),+), &[$(stringify!($label)),*]),
                )?;
                if <[&str]>::is_empty(&[$(stringify!($label)),*]) {
                    // Stands at zero from the start, so that its first increase is seen.
                    let _ = $field.with_label_values::<&str>(&[]);
                })+
                let process = prometheus::process_collector::ProcessCollector::for_self();
                registry.register(Box::new(process))?;
                Ok(Self { registry, directory_servers: Arc::default(), $($field,)+ })
            }

            $(
                $(#[doc = $doc])+
                #[must_use]
                pub fn $field(&self, $($label: &str),*) -> metrics!(@child $kind) {
                    self.$field.with_label_values::<&str>(&[$($label),*])
                }
            )+
        }
    };
    (@vec counter) => { IntCounterVec };
    (@vec gauge) => { IntGaugeVec };
    (@vec histogram) => { HistogramVec };
    (@child counter) => { IntCounter };
    (@child gauge) => { IntGauge };
    (@child histogram) => { Histogram };
    (@new counter $name:literal, $doc:expr, $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $doc.trim()), $labels)?
    };
    (@new gauge $name:literal, $doc:expr, $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $doc.trim()), $labels)?
    };
    (@new histogram $name:literal, $doc:expr, $labels:expr) => {
        HistogramVec::new(
            HistogramOpts::new($name, $doc.trim()).buckets(SECONDS.to_vec()),
            $labels,
        )?
    };
}

metrics! {
    /// Always 1; the label is the version.
    gauge build_info "bindgate_build_info" [version];
    /// Requests answered, by route, method, status and decision.
    counter http_requests "bindgate_http_requests_total" [route, method, status, decision];
    /// Seconds from a request's head to its answer's last byte.
    histogram http_request_duration "bindgate_http_request_duration_seconds" [route];
    /// Requests that were malformed and answered by the HTTP library itself.
    counter http_malformed "bindgate_http_malformed_total" [];
    /// Seconds of a forwarded request that were not spent waiting for client or upstream.
    histogram http_overhead "bindgate_http_overhead_seconds" [];
    /// Open connections.
    gauge connections_open "bindgate_connections_open" [listener];
    /// Open WebSockets.
    gauge websockets_open "bindgate_websockets_open" [];
    /// Connections, WebSockets or logins refused, or logins made to wait, because a limit was reached.
    counter limit_hits "bindgate_limit_hits_total" [limit];
    /// TLS handshakes.
    counter tls_handshakes "bindgate_tls_handshakes_total" [result, version, resumed];
    /// Logins, by their true outcome.
    counter logins "bindgate_logins_total" [result];
    /// Seconds of a login.
    histogram login_duration "bindgate_login_duration_seconds" [result];
    /// Changes of password that were asked for, by their true outcome.
    counter password_changes "bindgate_password_changes_total" [result];
    /// Checks of a presented token and context cookie.
    counter token_checks "bindgate_token_checks_total" [result];
    /// Assertions signed.
    counter assertions_signed "bindgate_assertions_signed_total" [upstream];
    /// Live sessions.
    gauge sessions_active "bindgate_sessions_active" [];
    /// Sessions ended before their time.
    counter sessions_revoked "bindgate_sessions_revoked_total" [reason];
    /// Operations asked of the directory.
    counter directory_operations "bindgate_directory_operations_total" [server, operation, result];
    /// Seconds of an operation at the directory.
    histogram directory_operation_duration "bindgate_directory_operation_duration_seconds" [server, operation];
    /// Looks at the accounts of all live sessions.
    counter rechecks "bindgate_rechecks_total" [result];
    /// Live sessions about whose accounts the directory said nothing at the last look.
    gauge recheck_unknown "bindgate_recheck_unknown_sessions" [];
    /// When the last look began that left no account unread, in seconds since 1970.
    gauge recheck_success "bindgate_recheck_success_timestamp_seconds" [];
    /// 1 while a directory server answers.
    gauge directory_up "bindgate_directory_up" [server];
    /// Open connections to a directory server: the shared one, and those that bind.
    gauge directory_connections_open "bindgate_directory_connections_open" [server, purpose];
    /// Users files read again because they changed.
    counter users_file_reloads "bindgate_users_file_reloads_total" [file, result];
    /// Failures that an account may have before it must wait.
    gauge login_limit "bindgate_login_limit" [of];
    /// Seconds for which a failure counts.
    gauge login_limit_window "bindgate_login_limit_window_seconds" [];
    /// The wrong password that makes the directory lock an account; 0: none, -1: not known.
    gauge lockout_threshold "bindgate_directory_lockout_threshold" [];
    /// Seconds for which the directory counts a wrong password; 0: for ever, -1: not known.
    gauge lockout_window "bindgate_directory_lockout_window_seconds" [];
    /// Live sessions of emergency accounts.
    gauge break_glass_sessions_active "bindgate_break_glass_sessions_active" [];
    /// Logins by emergency accounts while the directory was down.
    counter break_glass_logins "bindgate_break_glass_logins_total" [result];
    /// Attempts refused by a throttle.
    counter throttled "bindgate_throttled_total" [rule];
    /// Access codes issued, redeemed, wrong, expired and revoked.
    counter access_codes "bindgate_access_codes_total" [event];
    /// Access codes that can be redeemed now.
    gauge access_codes_alive "bindgate_access_codes_alive" [];
    /// Wrong tries that a length of access codes takes in 24 hours.
    gauge access_code_budget "bindgate_access_code_budget" [digits];
    /// Wrong tries that are left of that.
    gauge access_code_budget_left "bindgate_access_code_budget_left" [digits];
    /// Wrong tries that the codes of a backend take in 24 hours.
    gauge guess_budget "bindgate_guess_guard_budget" [guard];
    /// Wrong tries that are left of that.
    gauge guess_budget_left "bindgate_guess_guard_budget_left" [guard];
    /// Requests sent to an upstream.
    counter upstream_requests "bindgate_upstream_requests_total" [upstream, result];
    /// Seconds from sending a request to the upstream's response head.
    histogram upstream_duration "bindgate_upstream_duration_seconds" [upstream];
    /// 1 while an upstream server accepts connections.
    gauge upstream_up "bindgate_upstream_up" [upstream, server];
    /// How far the store's clock is ahead of this machine's, in whole seconds.
    gauge clock_offset "bindgate_clock_offset_seconds" [];
    /// Operations of the store.
    counter store_operations "bindgate_store_operations_total" [operation, result];
    /// Seconds since revocations were read last from a store that several gateways share.
    gauge revocation_lag "bindgate_revocation_lag_seconds" [];
    /// Configuration reloads.
    counter config_reloads "bindgate_config_reloads_total" [result];
    /// When the served certificate expires, in seconds since 1970.
    gauge certificate_expiry "bindgate_certificate_expiry_timestamp_seconds" [];
    /// Audit records.
    counter audit_records "bindgate_audit_records_total" [result];
    /// Keys held, for signing or for verifying only.
    gauge keys_held "bindgate_keys_held" [purpose];
    /// Keys made, retired because nobody needs them any more, or dropped at once.
    counter key_changes "bindgate_key_changes_total" [purpose, change];
    /// Tokens, cookies of ours and logins that came over plain HTTP, or in a query.
    counter credentials_exposed "bindgate_credentials_exposed_total" [listener, result];
    /// All token keys replaced because the store was new, lost or put back.
    counter keys_replaced "bindgate_keys_replaced_total" [];
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    /// A server's part of `directory_up`, as long as anybody holds one of its values: a
    /// server that is no longer configured is neither up nor down.
    #[must_use]
    pub fn directory_server(&self, server: &str) -> DirectoryUp {
        *self.held().entry(server.to_owned()).or_default() += 1;
        let gauge = self.directory_up(server);
        DirectoryUp { metrics: self.clone(), server: server.to_owned(), gauge }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.directory_servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text exposition format 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn encode(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Whether one directory server answers.
pub struct DirectoryUp {
    metrics: Metrics,
    server: String,
    gauge: IntGauge,
}

impl DirectoryUp {
    /// States it.
    pub fn set(&self, up: bool) {
        self.gauge.set(i64::from(up));
    }
}

impl Drop for DirectoryUp {
    fn drop(&mut self) {
        let mut held = self.metrics.held();
        if let Some(count) = held.get_mut(&self.server) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.server);
                let _ = self.metrics.directory_up.remove_label_values(&[&self.server]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn a_counted_request_stands_in_the_text() {
        let metrics = Metrics::new().unwrap();
        metrics.http_requests("/a", "GET", "200", "allow").inc();
        metrics.http_malformed().inc();
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        assert!(text.contains(
            "bindgate_http_requests_total{decision=\"allow\",method=\"GET\",route=\"/a\",status=\"200\"} 1"
        ));
        assert!(text.contains("bindgate_http_malformed_total 1"));
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn a_directory_server_is_told_of_as_long_as_it_is_configured() {
        let metrics = Metrics::new().unwrap();
        let text = || String::from_utf8(metrics.encode().unwrap()).unwrap();
        let line = "bindgate_directory_up{server=\"dc1:636\"} 1";
        let (old, new) = (metrics.directory_server("dc1:636"), metrics.directory_server("dc1:636"));
        new.set(true);
        drop(old);
        assert!(text().contains(line), "a reload keeps it");
        drop(new);
        assert!(!text().contains("dc1:636"), "{}", text());
    }

    #[test]
    fn every_metric_is_documented_with_its_labels() {
        let page = include_str!("../docs/operations.md");
        let declared = include_str!("metrics.rs").lines().filter_map(|line| {
            let (_, rest) = line.trim().split_once("\"bindgate_")?;
            let (name, labels) = rest.split_once("\" [")?;
            let labels = labels.strip_suffix("];")?.replace(", ", ",");
            Some(if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") })
        });
        let missing: Vec<String> =
            declared.filter(|name| !page.contains(&format!("`bindgate_{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_has_no_labels_stands_at_zero_from_the_start() {
        let text = String::from_utf8(Metrics::new().unwrap().encode().unwrap()).unwrap();
        assert!(text.contains("bindgate_keys_replaced_total 0"));
        assert!(text.contains("bindgate_http_overhead_seconds_count 0"));
    }
}
