//! `route.guess_guard`: how wrong guesses of a backend's own codes are seen in its
//! answers, and how many of them there may be.

use serde_json::Value;

use super::kind::{self, List, Whole};
use super::reader::Reader;
use super::{GuessBudget, Route, SuccessBound};

/// `route.guess_guard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuessGuard {
    /// Routes whose guards have one name spend one budget.
    pub name: String,
    /// Statuses that say that a code was wrong.
    pub failure_status: Vec<u16>,
    /// What stands in the body of an answer that says so.
    pub failure_json: Option<FailureTest>,
    /// What the codes may take.
    pub budget: GuessBudget,
}

/// `"/valid = false"`: a JSON Pointer (RFC 6901) and the value that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureTest {
    /// Where.
    pub pointer: String,
    /// What.
    pub value: Value,
}

impl FailureTest {
    /// Whether an answer's body says that a code was wrong; `None` when it is no JSON.
    #[must_use]
    pub fn fails(&self, body: &[u8]) -> Option<bool> {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(body.pointer(&self.pointer) == Some(&self.value))
    }
}

impl GuessGuard {
    /// Reads the table of a route with this label.
    pub(super) fn read(r: &mut Reader<'_>, label: &str) -> Option<Self> {
        let name = r.optional(
            "name",
            kind::line(),
            "Routes whose guards have one name spend one budget; the route's label if there is \
             none.",
        );
        let failure_status = r.or(
            "failure_status",
            List { of: Whole { min: 200, max: 599 }, min: 0 },
            Vec::new(),
            "Statuses by which the upstream says that a code was wrong.",
        );
        let failure_json = r.optional(
            "failure_json",
            kind::failure_test(),
            "What then stands in the JSON of its answer; one that cannot be read counts as wrong.",
        );
        let digits = r.required("digits", Whole { min: 4, max: 12 }, "How long its codes are.");
        let alive_max = r.required(
            "alive_max",
            Whole { min: 1, max: 1_000_000 },
            "How many of its codes are alive at most.",
        );
        let bound = r.required(
            "success_probability",
            kind::success_bound(),
            "How often guessing may succeed at most.",
        );
        if r.is_reading() && !r.given("failure_status") && !r.given("failure_json") {
            let allowed = "failure_status, failure_json or both".to_owned();
            r.problem("failure_status", "nothing that tells a wrong code", allowed);
        }
        let (digits, alive_max) = (u8::try_from(digits?).ok()?, u32::try_from(alive_max?).ok()?);
        let budget = GuessBudget::of_backend(digits, alive_max, bound?);
        if budget.tries == 0 {
            let allowed = "more digits, fewer codes alive or a laxer bound".to_owned();
            r.problem("success_probability", "a budget of no wrong try at all", allowed);
        }
        Some(Self {
            name: name.unwrap_or_else(|| label.to_owned()),
            failure_status: failure_status
                .into_iter()
                .filter_map(|it| it.try_into().ok())
                .collect(),
            failure_json,
            budget,
        })
    }
}

/// Tells each guard's budget, and refuses two of one name.
pub(super) fn check_shared(r: &mut Reader<'_>, routes: &[Option<Route>]) {
    let mut known: Vec<&GuessGuard> = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let Some(guard) = route.as_ref().and_then(|route| route.guess_guard.as_ref()) else {
            continue;
        };
        match known.iter().find(|earlier| earlier.name == guard.name) {
            None => {
                r.note("route", &format!("guess_guard {:?}, {}", guard.name, guard.budget));
                known.push(guard);
            }
            Some(earlier) if earlier.budget != guard.budget => {
                let found = format!("{:?} with other numbers than before", guard.name);
                let allowed = "the same digits, alive_max and success_probability".to_owned();
                r.problem_in(("route", index, "guess_guard"), found, allowed);
            }
            Some(_) => {}
        }
    }
}

/// Reads `/valid = false`.
pub(super) fn parse_failure_test(text: &str) -> Option<FailureTest> {
    let (pointer, value) = text.split_once(" = ")?;
    let pointer = pointer.trim();
    let escapes = pointer.split('~').skip(1);
    let is_pointer = pointer.starts_with('/')
        && escapes.into_iter().all(|rest| rest.starts_with('0') || rest.starts_with('1'));
    let value = serde_json::from_str(value.trim()).ok()?;
    is_pointer.then(|| FailureTest { pointer: pointer.to_owned(), value })
}

/// Reads `1 in 100 per day`.
pub(super) fn parse_bound(text: &str) -> Option<SuccessBound> {
    let number = text.strip_prefix("1 in ")?.strip_suffix(" per day")?;
    let one_in = number.parse().ok().filter(|one_in| (2..=1_000_000_000).contains(one_in))?;
    (!number.starts_with(['+', '0'])).then_some(SuccessBound { one_in })
}

#[cfg(test)]
mod tests {
    use super::{parse_bound, parse_failure_test};

    #[test]
    fn a_bound_reads_back_as_shown() {
        for text in ["1 in 2 per day", "1 in 100 per day", "1 in 1000000000 per day"] {
            assert_eq!(parse_bound(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "1 in 1 per day",
            "1 in 0 per day",
            "2 in 100 per day",
            "1 in 100",
            "1 in 1e3 per day",
            "1 in +9 per day",
            "1 in 100 per week",
        ] {
            assert_eq!(parse_bound(text), None, "{text}");
        }
    }

    #[test]
    fn a_failure_is_a_pointer_and_a_value() {
        let test = parse_failure_test("/valid = false").unwrap();
        assert_eq!(test.fails(br#"{"valid": false, "more": 1}"#), Some(true));
        assert_eq!(test.fails(br#"{"valid": true}"#), Some(false));
        assert_eq!(test.fails(br#"{"valid": "false"}"#), Some(false));
        assert_eq!(test.fails(br#"{"valid": fal"#), None);
        assert_eq!(test.fails(b""), None);
        let nested = parse_failure_test(r#"/a~1b/0 = {"c": [1]}"#).unwrap();
        assert_eq!(nested.fails(br#"{"a/b": [{"c": [1]}]}"#), Some(true));
        for text in ["", "valid = false", "/valid", "/valid = no", "/a~2 = 1", "/valid=false"] {
            assert!(parse_failure_test(text).is_none(), "{text}");
        }
    }
}
