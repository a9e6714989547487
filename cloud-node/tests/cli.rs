//! The real `cloud-node` binary: what it says to a bad configuration, and that it ends when asked.

use std::{
    fs,
    process::{Command, Output},
};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloud-node")).args(args).output().expect("the binary runs")
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_config_with_a_typo_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cleave.toml");
    fs::write(&file, "[cloud]\nlisen = \"127.0.0.1:0\"\n").unwrap();
    let text = refusal(run(&["serve", "--config", file.to_str().unwrap()]));
    assert!(text.contains("cleave.toml: cloud.lisen: unknown key; known here: listen"), "{text}");

    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let text = refusal(run(&["serve", "--config", file, "--set", "cloud.threads=0"]));
    assert!(text.contains("cloud.threads: 0 is out of range; allowed: 1 to 1024"), "{text}");
    let text = refusal(run(&["serve", "--config", "/nowhere.toml"]));
    assert!(text.contains("/nowhere.toml: cannot be read"), "{text}");
}

#[test]
fn help_tells_exit_codes_and_shows_this_program_in_use() {
    let help = |words: &[&str]| String::from_utf8(run(words).stdout).unwrap();
    let text = help(&["--help"]);
    assert!(text.contains("Exit codes: 0 done, 1 failed, 2 a bad command"), "{text}");
    let text = help(&["completions", "--help"]);
    assert!(text.contains("cloud-node completions bash >"), "{text}");
    assert!(!text.contains("edge-node"), "{text}");
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("cloud.listen={}", taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cleave.toml");
    fs::write(&file, "").unwrap();
    let output = run(&["serve", "--config", file.to_str().unwrap(), "--set", &listen]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cloud.listen: cannot listen on 127.0.0.1:"), "{text}");
}
