//! What one audit record says and how it is written: one line of printable ASCII
//! JSON, every member bounded. Knows neither the chain's hashes nor the file.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use crate::ambient::Timestamp;

/// Longest member that a client chooses, in bytes before escaping.
const PATH_BYTES_MAX: usize = 2048;
/// Longest other text, in bytes before escaping.
const TEXT_BYTES_MAX: usize = 256;

/// What happened; a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The gateway began to serve.
    Start,
    /// The gateway stopped.
    Stop,
    /// A login, whatever its outcome.
    Login,
    /// A login by an emergency account while the directory was down, whatever its outcome.
    BreakGlass,
    /// A change of password that was asked for, whatever its outcome.
    PasswordChange,
    /// A logout.
    Logout,
    /// A request that was refused.
    Refusal,
    /// A request that was forwarded.
    Request,
    /// A session that was ended by something other than its logout.
    Revocation,
    /// Signing keys made, replaced or dropped.
    Keys,
    /// A reload of the configuration.
    Reload,
    /// An access code that was given out, tried or taken back.
    AccessCode,
}

impl Event {
    /// The member `event`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Login => "login",
            Self::BreakGlass => "break_glass",
            Self::PasswordChange => "password_change",
            Self::Logout => "logout",
            Self::Refusal => "refusal",
            Self::Request => "request",
            Self::Revocation => "revocation",
            Self::Keys => "keys",
            Self::Reload => "reload",
            Self::AccessCode => "access_code",
        }
    }
}

/// One record. There is no member for a password, token, cookie or query, so
/// none can be recorded; no `Debug`, because `path` still carries the query.
#[derive(Clone)]
pub struct Record {
    /// What happened.
    pub event: Event,
    /// How it ended: `success`, `allow`, or a refusal's code.
    pub outcome: &'static str,
    /// The request's id, as in the log and `X-Request-Id`.
    pub request_id: Option<HeaderValue>,
    /// Who, once it is proved.
    pub subject: Option<Arc<str>>,
    /// In which role.
    pub role: Option<Arc<str>>,
    /// In which session: the raw bytes of its id, written as `sid` is.
    pub session: Option<[u8; 16]>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: Option<Method>,
    /// The request's target; only its path is written, never the query.
    pub path: Option<PathAndQuery>,
    /// The label of the route that decided.
    pub route: Option<Arc<str>>,
    /// The status answered.
    pub status: Option<u16>,
    /// From the request's head to the end of its answer.
    pub duration: Option<Duration>,
    /// The keyed hash of a login name that matched no entry (`Audit::hash_name`).
    pub name_hash: Option<String>,
    /// One more word on the cause, from a closed set or from configuration; with an
    /// emergency account the reason that it gave.
    pub detail: Option<Cow<'static, str>>,
}

impl Record {
    /// A record of which only event and outcome are known.
    #[must_use]
    pub const fn new(event: Event, outcome: &'static str) -> Self {
        Self {
            event,
            outcome,
            request_id: None,
            subject: None,
            role: None,
            session: None,
            client: None,
            method: None,
            path: None,
            route: None,
            status: None,
            duration: None,
            name_hash: None,
            detail: None,
        }
    }
}

/// A record and when it was made.
pub(super) struct Stamped {
    pub(super) time: Timestamp,
    pub(super) record: Record,
}

impl Stamped {
    /// Adds this record's members to a line that is already begun.
    pub(super) fn write(&self, line: &mut Vec<u8>) {
        let record = &self.record;
        text(line, "event", record.event.label(), TEXT_BYTES_MAX);
        text(line, "outcome", record.outcome, TEXT_BYTES_MAX);
        if let Some(id) = &record.request_id {
            text(line, "request_id", &String::from_utf8_lossy(id.as_bytes()), TEXT_BYTES_MAX);
        }
        optional(line, "subject", record.subject.as_deref());
        optional(line, "role", record.role.as_deref());
        if let Some(session) = record.session {
            text(line, "session", &URL_SAFE_NO_PAD.encode(session), TEXT_BYTES_MAX);
        }
        if let Some(client) = record.client {
            text(line, "client", &client.to_canonical().to_string(), TEXT_BYTES_MAX);
        }
        optional(line, "method", record.method.as_ref().map(Method::as_str));
        if let Some(path) = &record.path {
            text(line, "path", path.path(), PATH_BYTES_MAX);
        }
        optional(line, "route", record.route.as_deref());
        if let Some(status) = record.status {
            number(line, "status", u64::from(status));
        }
        if let Some(duration) = record.duration {
            milliseconds(line, "duration_ms", duration);
        }
        optional(line, "name_hash", record.name_hash.as_deref());
        optional(line, "detail", record.detail.as_deref());
    }
}

fn optional(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        text(line, name, value, TEXT_BYTES_MAX);
    }
}

/// Adds `,"name":"value"`, cut after `max` bytes (then it ends in `\u2026`).
pub(super) fn text(line: &mut Vec<u8>, name: &str, value: &str, max: usize) {
    member(line, name);
    line.push(b'"');
    for (at, char) in value.char_indices() {
        if at + char.len_utf8() > max {
            line.extend_from_slice(br"\u2026");
            break;
        }
        escaped(line, char);
    }
    line.push(b'"');
}

/// Adds `,"name":value`.
pub(super) fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    member(line, name);
    line.extend_from_slice(value.to_string().as_bytes());
}

fn milliseconds(line: &mut Vec<u8>, name: &str, value: Duration) {
    member(line, name);
    let micros = value.as_micros();
    line.extend_from_slice(format!("{}.{:03}", micros / 1000, micros % 1000).as_bytes());
}

fn member(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

/// Everything but printable ASCII is escaped, so that no terminal, pager or log
/// shipper is talked into anything by a path.
fn escaped(line: &mut Vec<u8>, char: char) {
    match char {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(br"\\"),
        ' '..='~' => line.push(char as u8),
        _ => {
            for unit in char.encode_utf16(&mut [0; 2]) {
                line.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Event, Record, Stamped, text};
    use crate::ambient::Timestamp;

    fn line(record: Record) -> String {
        let mut line = b"{\"seq\":1".to_vec();
        Stamped { time: Timestamp::from_millis(0), record }.write(&mut line);
        line.push(b'}');
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_record_never_holds_the_query() {
        let mut record = Record::new(Event::Request, "allow");
        record.path = Some("/a%20b?access_token=hunter2".parse().unwrap());
        record.duration = Some(Duration::from_micros(12_034));
        record.session = Some([0xff; 16]);
        let line = line(record);
        assert!(!line.contains("hunter2"), "{line}");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["path"], "/a%20b");
        assert_eq!(json["duration_ms"], 12.034);
        assert_eq!(json["session"], "_____________________w");
    }

    #[test]
    fn absent_members_are_not_written() {
        assert_eq!(
            line(Record::new(Event::Logout, "success")),
            r#"{"seq":1,"event":"logout","outcome":"success"}"#
        );
    }

    #[test]
    fn bytes_of_a_header_that_are_no_text_still_make_json() {
        let mut record = Record::new(Event::Refusal, "BadRequest");
        record.request_id = Some(HeaderValue::from_bytes(b"a\xff\"\tb").unwrap());
        let json: serde_json::Value = serde_json::from_str(&line(record)).unwrap();
        assert_eq!(json["request_id"], "a\u{fffd}\"\tb");
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line_of_printable_json(value in any::<String>()) {
            let mut line = b"{\"seq\":1".to_vec();
            text(&mut line, "x", &value, usize::MAX);
            line.push(b'}');
            prop_assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)));
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(json["x"].as_str(), Some(value.as_str()));
        }

        #[test]
        fn no_text_outgrows_its_bound(value in "\\PC{0,400}", max in 0_usize..300) {
            let mut line = Vec::new();
            text(&mut line, "x", &value, max);
            prop_assert!(line.len() <= max * 6 + 20);
        }
    }
}
