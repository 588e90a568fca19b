//! What the client is told of a login, over HTTPS, and what is recorded of it: the true
//! outcome, in metrics, log and audit.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::support::eventually;
use crate::support::world::{World, log_in};

/// A name and a password; the status and the code that the client is told; and the true
/// outcome, with what the directory warned of.
pub(super) type Answered = (&'static str, &'static str, u16, &'static str, &'static str);

/// Nothing of the account unless the password was proved, and the true
/// outcome in metric, log and audit.
pub(super) async fn expect_answers(toml: &str, answered: &[Answered]) {
    let world = World::with(|setup| {
        setup.directory(toml);
    })
    .await;
    for (name, password, status, code, _) in answered {
        let answer = log_in(&world.client(), name, password).await;
        match *status {
            200 => answer.expect_status(200),
            status => answer.expect(status, code),
        }
    }
    let audit = fs::read_to_string(world.gateway.setup.audit_file()).expect("the audit log");
    let records = audit.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let logins = records.filter(|record: &Value| record["event"] == "login");
    let outcome = |record: Value| match (&record["outcome"], &record["detail"]) {
        (Value::String(outcome), Value::String(detail)) => format!("{outcome} {detail}"),
        (outcome, _) => outcome.as_str().unwrap_or_default().to_owned(),
    };
    let recorded: Vec<String> = logins.map(outcome).collect();
    let outcomes: Vec<&str> = answered.iter().map(|(.., outcome)| *outcome).collect();
    assert_eq!(recorded, outcomes);
    let mut times: BTreeMap<&str, f64> = BTreeMap::new();
    for outcome in outcomes {
        let mut words = outcome.split(' ');
        *times.entry(words.next().unwrap_or_default()).or_default() += 1.0;
        if let Some(detail) = words.next() {
            world.gateway.logged(detail).await;
        }
    }
    // In the log each refusal is one line.
    let refused = answered.iter().filter(|(_, _, status, ..)| *status != 200);
    let mut expected: Vec<&str> = refused.map(|(.., outcome)| *outcome).collect();
    expected.sort_unstable();
    eventually("all refusals in the log", || {
        let log = world.gateway.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refusals = lines.filter(|line| line["message"] == "login refused");
        let mut logged: Vec<String> =
            refusals.filter_map(|line| line["outcome"].as_str().map(str::to_owned)).collect();
        logged.sort_unstable();
        (logged == expected).then_some(())
    })
    .await;
    for (outcome, times) in times {
        world.gateway.counted("bindgate_logins_total", &[("result", outcome)], times).await;
    }
}
