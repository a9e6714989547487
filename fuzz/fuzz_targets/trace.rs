//! Rates over time in both file formats, and a link profile.
#![no_main]

use std::{fs, path::PathBuf, sync::OnceLock};

use cleave_shared::link::{
    Profile,
    trace::{AtEnd, Trace},
};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

fn folder() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path().into()
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let at_end = if kind & 4 == 0 { AtEnd::Loop } else { AtEnd::Hold };
    let path = folder().join("rates");
    let trace = match kind & 3 {
        0 => {
            let Ok(text) = str::from_utf8(data) else { return };
            Trace::parse_csv("rates", text, at_end)
        }
        1 => {
            fs::write(&path, data).expect("a file");
            Trace::read_mahimahi(&path, &path, at_end)
        }
        _ => {
            let path = path.with_extension("toml");
            fs::write(&path, data).expect("a file");
            let _ = Profile::load(&path).map_err(|error| error.to_string());
            return;
        }
    };
    let Ok(trace) = trace else { return };
    assert!(trace.uplink.mean_bps().is_finite() && trace.downlink.mean_bps() >= 0.0);
    if kind & 3 == 0 {
        // What was read can be written, and is the same when it is read again.
        let mut text = Vec::new();
        trace.write_csv(&mut text).expect("both directions are of one file");
        let text = String::from_utf8(text).expect("text");
        let again = Trace::parse_csv("rates", &text, at_end).expect("what was written");
        assert_eq!(again, trace);
    }
});
