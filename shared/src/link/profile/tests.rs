use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Profile, String> {
    file::parse("p.toml", "p", text, Path::new("")).map_err(|e| e.to_string())
}

/// A valid head, so that a test needs only the part that it is about. The part begins on line 3.
fn with(part: &str) -> Result<Profile, String> {
    parse(&format!("description = \"d\"\nsources = [\"s\"]\n{part}"))
}

#[test]
fn shipped_files_equal_the_compiled_copies_and_cite_sources() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/links"));
    for name in Profile::known(Some(folder)) {
        let found = Profile::find(&name, Some(folder)).expect("a shipped file is valid");
        assert_eq!(found.name, name);
        assert!(found.sources.iter().all(|source| !source.trim().is_empty()));
        assert_eq!(found.is_ideal(), name == "none");
        if Profile::NAMES.contains(&name.as_str()) {
            assert_eq!(Profile::builtin(&name), Some(found), "{name}");
        }
    }
    assert_eq!(Profile::builtin("6g"), None);
}

#[test]
fn a_plain_profile_reads_as_it_is_written() {
    let profile = with(
        "[uplink]\nrate_mbps = 10\ndelay_ms = 5\nqueue_ms = 100\njitter = { kind = \"pareto\", mean_ms = 2, shape = 1.5 }\n[transport]\nkind = \"open\"\n",
    )
    .expect("valid");
    assert_eq!(profile.uplink.rate_bps, 10_000_000);
    assert_eq!(profile.uplink.queue_bytes, 125_000);
    assert_eq!(profile.uplink.jitter, Jitter::Pareto { mean_ms: 2.0, shape: 1.5 });
    assert_eq!((profile.transport, profile.downlink.rate_bps), (Transport::Open, 0));
    let whole = with("[uplink]\nrate_mbps = 0.5\n").expect("valid");
    assert_eq!(whole.uplink.queue_bytes, 131_072, "at least");
}

#[test]
fn a_rate_can_come_from_the_carrier() {
    let air = "[air]\nnumerology = 1\ntdd = \"DDDSU\"\nbandwidth_mhz = 100\n";
    let profile = with(&format!("{air}[downlink]\nlayers = 4\nmcs = 27\n")).expect("valid");
    // The published 2337 Mbit/s times the downlink's 52 of 70 symbols.
    let expected = 2337.0 * 52.0 / 70.0;
    assert!((profile.downlink.rate_bps as f64 / 1e6 - expected).abs() < 1.0);
    let error = with("[downlink]\nlayers = 4\nmcs = 27\n").expect_err("no carrier");
    assert_eq!(
        error,
        "p.toml:3: downlink.layers: needs [air] with bandwidth_mhz, or give rate_mbps"
    );
    let error = with("[air]\nnumerology = 2\nbandwidth_mhz = 35\n[uplink]\nlayers = 1\nmcs = 3\n");
    assert!(error.expect_err("no such carrier").contains("no carrier of 35 MHz"));
}

#[test]
fn bad_values_are_refused_with_file_and_line() {
    for (part, expected) in [
        (
            "[uplink]\nrate_mbps = -1\n",
            "p.toml:4: uplink.rate_mbps: -1 is out of range; allowed: 0 to",
        ),
        ("[uplink]\nrate_mbps = nan\n", "p.toml:4: uplink.rate_mbps: NaN is out of range"),
        ("[uplink]\nrate_mbps = inf\n", "p.toml:4: uplink.rate_mbps: inf is out of range"),
        (
            "[uplink]\nrate_mbps = 0.0000001\n",
            "p.toml:4: uplink.rate_mbps: 0.0000001 is out of range",
        ),
        ("[uplink]\n\ndelay_ms = -0.5\n", "p.toml:5: uplink.delay_ms: -0.5 is out of range"),
        (
            "[downlink]\nqueue_bytes = 0\n",
            "p.toml:4: downlink.queue_bytes: 0 is out of range; allowed: 1 to",
        ),
        ("[downlink]\nqueue_ms = 0\n", "p.toml:4: downlink.queue_ms: 0 is out of range"),
        ("[uplink]\ndelay = 1\n", "p.toml:4: unknown field `delay`"),
        ("[uplnk]\ndelay_ms = 1\n", "p.toml:3: unknown field `uplnk`"),
        ("[uplink]\ndelay_ms = \"x\"\n", "p.toml:4: invalid type: string \"x\""),
        ("[uplink]\ndelay_ms = \n", "p.toml:4: "),
        (
            "[uplink]\njitter = { kind = \"gauss\", std_ms = 1 }\n",
            "p.toml:4: uplink.jitter.kind: \"gauss\" is unknown; allowed: normal, pareto, file",
        ),
        (
            "[uplink]\njitter = { kind = \"normal\", std_ms = -1 }\n",
            "p.toml:4: uplink.jitter.std_ms: -1 is",
        ),
        (
            "[uplink]\njitter = { kind = \"normal\" }\n",
            "p.toml:4: uplink.jitter.std_ms: is missing",
        ),
        (
            "[uplink]\njitter = { kind = \"pareto\", mean_ms = 1, shape = 1 }\n",
            "p.toml:4: uplink.jitter.shape: 1 is out of range",
        ),
        (
            "[uplink]\njitter = { kind = \"file\", path = \"nowhere\" }\n",
            "p.toml:4: uplink.jitter.path: nowhere: cannot be read",
        ),
        ("[uplink]\nharq = { bler = 1.5 }\n", "p.toml:4: uplink.harq.bler: 1.5 is out of range"),
        (
            "[packet]\nmtu_bytes = 100\n",
            "p.toml:4: packet.mtu_bytes: 100 is out of range; allowed: 576 to 9000",
        ),
        (
            "[transport]\nkind = \"quic\"\n",
            "p.toml:4: transport.kind: \"quic\" is unknown; allowed: tcp, open",
        ),
        ("[air]\ntdd = \"DDU\"\n", "p.toml:3: air.numerology: is missing"),
        ("[air]\nnumerology = 1\ntdd = \"DDD\"\n", "p.toml:5: air.tdd: \"DDD\" has no uplink slot"),
        ("[air]\nnumerology = 9\n", "p.toml:4: air.numerology: 9 is out of range"),
        ("[outage]\nevery_s = 0\nduration_ms = 5\n", "p.toml:4: outage.every_s: 0 is out of range"),
        ("[outage]\nevery_s = 1\n", "p.toml:3: outage.duration_ms: is missing"),
        ("[trace]\n", "p.toml:3: trace: needs csv, or both"),
        ("[trace]\ncsv = \"nowhere.csv\"\n", "nowhere.csv: cannot be read"),
    ] {
        let error = with(part).expect_err(part);
        assert!(error.starts_with(expected), "{part}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = parse("description = \" \"\nsources = [\"s\"]\n").expect_err("empty");
    assert!(error.starts_with("p.toml:1: description: is empty"), "{error}");
    let error = parse("description = \"d\"\nsources = []\n").expect_err("empty");
    assert!(error.starts_with("p.toml:2: sources: is empty"), "{error}");
    assert!(parse("").expect_err("empty").starts_with("p.toml:1: missing field"));
}

#[test]
fn jitter_and_trace_files_are_found_beside_the_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
        folder.path().join(name)
    };
    write("delays.txt", "# ms\n1.5\n\n2\n");
    write("t.csv", "time_s,uplink_bps,downlink_bps,rtt_ms\n0,1000000,2000000,30\n");
    let head = "description = \"d\"\nsources = [\"s\"]\n";
    let path = write(
        "own.toml",
        &format!(
            "{head}[uplink]\njitter = {{ kind = \"file\", path = \"delays.txt\" }}\n[trace]\ncsv = \"t.csv\"\n"
        ),
    );
    let own = Profile::find("own", Some(folder.path())).expect("valid");
    assert_eq!(own.uplink.jitter, Jitter::Samples([1.5, 2.0].into()));
    assert_eq!(own.delay_ms(), 30.0);
    assert_eq!(Profile::load(&path), Ok(own));
    write("delays.txt", "1\n-2\n");
    let error = Profile::load(&path).expect_err("negative").to_string();
    assert!(error.contains("delays.txt:2: \"-2\" is no delay"), "{error}");
    write("delays.txt", "# none\n");
    assert!(Profile::load(&path).expect_err("empty").to_string().contains("has no delays"));
    let error = Profile::find("6g", Some(folder.path())).expect_err("unknown").to_string();
    assert!(
        error.contains("unknown profile; known: 5g-lowband") && error.contains(" own,"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", part in "[a-z_.]{0,12}( = )?[-0-9a-z\"{}\\[\\]]{0,12}\n?") {
        let _ = parse(&text);
        let _ = with(&part);
        let _ = with(&format!("[uplink]\n{part}"));
    }
}
