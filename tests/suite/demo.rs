//! The demonstration does what it promises to somebody who has just cloned it: its
//! lines work when pasted.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::gateway::{BINARY, named_address};

/// What the demonstration printed, and its process.
struct Running {
    process: std::process::Child,
    lines: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn start() -> Running {
    let mut process = Command::new(BINARY)
        .args(["demo", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let stdout = process.stdout.take().expect("piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    let mut running = Running { process, lines: Vec::new() };
    loop {
        let line = receiver.recv_timeout(Duration::from_mins(1)).expect("the demo goes on");
        let last = line.contains("Ctrl-C");
        running.lines.push(line);
        if last {
            return running;
        }
    }
}

/// Pastes one line into a shell and returns what it printed.
fn paste(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_printed_lines_work_when_pasted() {
    let mut demo = start();
    let ready = demo.lines.iter().find(|line| line.starts_with("bindgate ready")).expect("ready");
    assert!(named_address(ready, "https").is_some() && named_address(ready, "telemetry").is_some());
    let pasted: Vec<(String, String)> = demo
        .lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("# ") && pair[1].starts_with("curl "))
        .map(|pair| (pair[0].clone(), paste(&pair[1])))
        .collect();
    let answer = |words: &str| {
        let found = pasted.iter().find(|(what, _)| what.contains(words));
        found.map_or_else(|| panic!("{words}: {pasted:?}"), |(_, answer)| answer.as_str())
    };
    let json = |words: &str| -> Value { serde_json::from_str(answer(words)).expect("JSON") };

    assert_eq!(json("log in")["id"], "cora");
    assert_eq!(json("log in")["role"], "contact_tracer");
    let identity = json("with her identity");
    assert_eq!((&identity["user"], &identity["role"]), (&"cora".into(), &"contact_tracer".into()));
    assert_eq!(json("without cookies")["error"], "Unauthenticated");
    assert_eq!(json("stolen token")["error"], "ContextMismatch");
    let forged = json("forged headers");
    assert_eq!((&forged["user"], &forged["role"]), (&"cora".into(), &"contact_tracer".into()));
    assert!(!answer("forged headers").contains("mallory"));
    assert_eq!(json("may not do everything")["error"], "Forbidden");
    assert_eq!(json("an access code")["accessCode"].as_str().map(str::len), Some(6));
    assert_eq!(json("whoever types it")["role"], "access_code");
    assert_eq!(json("meant for codes")["role"], "access_code");
    assert_eq!(answer("log out").trim(), "204");
    assert_eq!(json("worth nothing")["error"], "SessionRevoked");

    let folder = demo.lines.iter().find_map(|line| {
        let rest = line.trim().strip_prefix("Everything lies in ")?;
        Some(rest.split(" and goes").next()?.to_owned())
    });
    let folder = folder.expect("the folder is named");
    assert!(std::path::Path::new(&folder).exists());
    let pid = demo.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let status = demo.process.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "0 on Ctrl-C");
    assert!(!std::path::Path::new(&folder).exists(), "the folder goes");
}
