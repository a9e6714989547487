//! A profile's picture without connections: both directions saturated, in virtual time.

use std::{path::Path, time::Duration};

use cleave_shared::{
    checkpoint,
    link::{Profile, Scheduler, Transfer, Way, WhatIf},
};

use super::{plot, record::Recorder};

/// Points of a picture.
const POINTS: u32 = 1_000;

/// Lets a bulk transfer in each direction run for `length`, and records it every `step`.
pub fn saturated(
    profile: &Profile,
    seed: u64,
    length: Duration,
    step: Duration,
) -> Result<Recorder, String> {
    let mut lab = WhatIf::new(Scheduler::default());
    let device = lab.join(profile, seed);
    let connection = lab.connect(device).ok_or("the link never lets a connection through")?;
    let begin = lab.now();
    let bulk =
        [Way::Uplink, Way::Downlink].map(|way| Transfer { connection, way, bytes: u64::MAX });
    let mut recorder = Recorder::default();
    while lab.now() - begin < length {
        recorder.note((lab.now() - begin).as_secs_f64(), lab.status(device));
        lab.run_until(&bulk, lab.now() + step);
    }
    recorder.note((lab.now() - begin).as_secs_f64(), lab.status(device));
    Ok(recorder)
}

/// Draws a saturated link into a file.
pub fn draw(profile: &Profile, seed: u64, length: Duration, file: &Path) -> Result<(), String> {
    let recorder = saturated(profile, seed, length, length / POINTS)?;
    let title = format!("{}, both directions saturated", profile.name);
    let picture = plot::svg(&title, recorder.samples());
    checkpoint::write_atomic(file, picture.as_bytes()).map_err(|e| format!("--plot: {e}"))?;
    println!("wrote {}", file.display());
    Ok(())
}
