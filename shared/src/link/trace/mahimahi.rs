//! Mahimahi's packet-delivery traces (Netravali et al., "Mahimahi: Accurate
//! Record-and-Replay for HTTP", USENIX ATC 2015; `mm-link(1)`), which most published
//! mobile traces use.
//!
//! A line is a whole number of ms: at that instant 1500 bytes can be delivered, unused
//! ones are lost. `mm-link` starts the file again when it has used its last line, and
//! counts the next lap from that line's time (`link_queue.cc`): the last time stamp is the
//! period. What that means at the two ends:
//!
//! * An opportunity at the last time stamp is used, at the end of every lap.
//! * An opportunity at 0 coincides with the end of the lap before. Only in the first lap
//!   there is none before it, and nothing can wait at the instant the link begins.
//!
//! Here the *n* opportunities at *t* become the rate n × 1500 bytes per ms over the
//! millisecond that ends at *t*, those at 0 over the one that ends with the period. So the
//! bytes delivered by every whole ms are exactly Mahimahi's, and laps are all the same;
//! within a ms they come as a stream where Mahimahi has them at its end.
//!
//! Blank lines, comments and CRLF are read although `mm-link` refuses them; none is written.

use std::io::{self, BufWriter, Write};

use super::curve::{BIT_NS_PER_BYTE, Curve, MAX_RATE_BPS, MAX_TIME_NS};
use super::error::{TraceError, excerpt};
use super::file::{MAX_FILE_BYTES, lines};
use super::lap::AtEnd;

/// Bytes of an opportunity.
const MTU_BYTES: u64 = 1_500;
const NS_PER_MS: u64 = 1_000_000;
/// What one opportunity in a ms amounts to, bit/s.
const RATE_BPS: u64 = MTU_BYTES * 8 * 1_000;
/// Over how long the rate is averaged that holds after the end, ms.
const HELD_MS: u64 = 1_000;

/// One direction. Held after its end is the mean rate of its last second: its last
/// millisecond alone, of which the last line is a part, says nothing.
pub(super) fn parse(file: &str, text: &str, at_end: AtEnd) -> Result<Curve, TraceError> {
    let mut bins = Bins::default();
    let mut last_line = 1;
    for (number, line) in lines(text) {
        let refuse =
            |(what, remedy): (String, &str)| TraceError::at_line(file, number, what, remedy);
        bins.add(milliseconds(line).map_err(refuse)?).map_err(refuse)?;
        last_line = number;
    }
    let refuse = |what: &str, remedy: &str| TraceError::at_line(file, last_line, what, remedy);
    let Some(period_ms) = bins.counts.last().map(|bin| bin.0) else {
        return Err(refuse("no opportunities", "write one time in ms per line"));
    };
    if period_ms == 0 {
        return Err(refuse("the period is 0 ms", "end on the time at which the trace repeats"));
    }
    let (rows, length_ns) = bins.rows(period_ms, at_end);
    Curve::new(&rows, length_ns, at_end).map_err(|error| {
        let (what, remedy) = error.split_once("; ").unwrap_or((&error, "mend the trace"));
        refuse(what, remedy)
    })
}

fn milliseconds(line: &str) -> Result<u64, (String, &'static str)> {
    if !line.bytes().all(|byte| byte.is_ascii_digit()) {
        let what = format!("{} is no whole number of ms", excerpt(line));
        return Err((what, "write one time in ms per line, such as 17"));
    }
    let highest = MAX_TIME_NS / NS_PER_MS;
    match line.parse() {
        Ok(ms) if ms <= highest => Ok(ms),
        _ => Err((format!("{} ms is over 10^9 s", excerpt(line)), "cut the trace")),
    }
}

/// How many opportunities there are at each time that has any, in order.
#[derive(Default)]
struct Bins {
    counts: Vec<(u64, u64)>,
}

impl Bins {
    fn add(&mut self, ms: u64) -> Result<(), (String, &'static str)> {
        match self.counts.last_mut() {
            Some(last) if last.0 > ms => {
                Err((format!("{ms} ms follows {} ms", last.0), "sort the lines"))
            }
            Some(last) if last.0 == ms && (last.1 + 1) * RATE_BPS > MAX_RATE_BPS => {
                let what = format!("over {MAX_RATE_BPS} bit/s at {ms} ms");
                Err((what, "write ms, not seconds, and fewer lines for each"))
            }
            Some(last) if last.0 == ms => {
                last.1 += 1;
                Ok(())
            }
            _ => {
                self.counts.push((ms, 1));
                Ok(())
            }
        }
    }

    /// `(start_ns, rate_bps)`, and the length, ns.
    fn rows(mut self, period_ms: u64, at_end: AtEnd) -> (Vec<(u64, u64)>, u64) {
        if let Some(first) = self.counts.first().copied().filter(|bin| bin.0 == 0) {
            self.counts.remove(0);
            let last = self.counts.len() - 1; // there is one: the period is not 0
            self.counts[last].1 += first.1;
        }
        let mut rows: Vec<(u64, u64)> = Vec::new();
        let mut push = |start_ms: u64, rate_bps: u64| {
            if rows.last().is_none_or(|row| row.1 != rate_bps) {
                rows.push((start_ms * NS_PER_MS, rate_bps));
            }
        };
        let mut covered_ms = 0;
        for &(ms, count) in &self.counts {
            if ms - 1 > covered_ms {
                push(covered_ms, 0);
            }
            push(ms - 1, count * RATE_BPS);
            covered_ms = ms;
        }
        if at_end == AtEnd::Loop {
            return (rows, period_ms * NS_PER_MS);
        }
        push(period_ms, self.held_bps(period_ms));
        let last = rows[rows.len() - 1].0;
        let before = rows.iter().rev().nth(1).map_or(0, |row| row.0);
        (rows, last + (last - before).max(NS_PER_MS)) // as a CSV has it
    }

    fn held_bps(&self, period_ms: u64) -> u64 {
        let window_ms = period_ms.min(HELD_MS);
        let late = self.counts.iter().rev().take_while(|bin| bin.0 > period_ms - window_ms);
        late.map(|bin| bin.1).sum::<u64>() * RATE_BPS / window_ms
    }
}

/// One lap of one direction: the k-th line is when the curve has delivered k × 1500 bytes,
/// rounded up to a whole ms. Where none falls on the end of the lap, one is
/// added there, because the last line is the period.
pub(super) fn write(name: &str, curve: &Curve, out: impl Write) -> Result<(), TraceError> {
    let period_ms = ((curve.duration_ns() + NS_PER_MS / 2) / NS_PER_MS).max(1);
    let line_bytes = period_ms.to_string().len() as u64 + 1;
    let count = curve.bytes(0, curve.duration_ns()) / MTU_BYTES + 1;
    if count.saturating_mul(line_bytes) > MAX_FILE_BYTES {
        let what = format!("about {count} opportunities in one lap");
        return Err(TraceError::new(name, what, "write a CSV, or a shorter or slower trace"));
    }
    opportunities(curve, period_ms, out).map_err(|error| {
        TraceError::new(name, format!("cannot be written: {error}"), "make room for it")
    })
}

fn opportunities(curve: &Curve, period_ms: u64, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let opportunity = BIT_NS_PER_BYTE * u128::from(MTU_BYTES);
    let length_ns = curve.duration_ns();
    let (mut delivered, mut due, mut last_ms) = (0, opportunity, 0);
    let mut rows = curve.rows().peekable();
    while let Some((start_ns, rate_bps)) = rows.next() {
        let end_ns = rows.peek().map_or(length_ns, |next| next.0);
        let rate = u128::from(rate_bps);
        let after = delivered + rate * u128::from(end_ns - start_ns);
        while due <= after {
            // What is due here is ahead of what was delivered, so the rate is not 0.
            let ns = u128::from(start_ns) + (due - delivered).div_ceil(rate);
            last_ms = (ns.div_ceil(u128::from(NS_PER_MS)) as u64).min(period_ms);
            writeln!(out, "{last_ms}")?;
            due += opportunity;
        }
        delivered = after;
    }
    if last_ms < period_ms {
        writeln!(out, "{period_ms}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_loop(text: &str) -> Result<Curve, TraceError> {
        parse("t.up", text, AtEnd::Loop)
    }

    fn written(curve: &Curve) -> String {
        let mut bytes = Vec::new();
        write("t", curve, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// `mm-link`, step by step: how many opportunities it has had by `now_ms`, without
    /// those at the instant 0.
    fn mahimahi(schedule: &[u64], now_ms: u64) -> u64 {
        let (mut base, mut next, mut used) = (0, 0, 0);
        while base + schedule[next] <= now_ms {
            used += u64::from(base + schedule[next] > 0);
            next = (next + 1) % schedule.len();
            if next == 0 {
                base += schedule[schedule.len() - 1];
            }
        }
        used
    }

    #[test]
    fn a_constant_link_is_constant() {
        let curve = parse_loop("# 12 Mbit/s\r\n1\r\n2\n\n3\n").unwrap();
        let forever = curve.at(0);
        assert_eq!((forever.rate_bps, forever.until_ns), (12_000_000, u64::MAX));
        assert_eq!(curve.duration_ns(), 3 * NS_PER_MS);
    }

    #[test]
    fn held_after_the_end_is_the_last_second() {
        let text: String =
            (0..=3_000).filter(|ms| ms % 4 == 0).map(|ms| format!("{ms}\n")).collect();
        let curve = parse("t.up", &text, AtEnd::Hold).unwrap();
        let held = curve.at(3_000 * NS_PER_MS);
        assert_eq!((held.rate_bps, held.until_ns), (3_012_000, u64::MAX));
    }

    #[test]
    fn bad_lines_are_refused_with_file_line_and_remedy() {
        let crowd = "7\n".repeat(833_334);
        for (text, expected) in [
            ("", "t.up:1: no opportunities; write one time in ms per line"),
            ("# none\n\n", "t.up:1: no opportunities"),
            ("0\n0\n", "t.up:2: the period is 0 ms; end on"),
            ("5\n4\n", "t.up:2: 4 ms follows 5 ms; sort the lines"),
            ("5\n-4\n", "t.up:2: \"-4\" is no whole number of ms; write one time"),
            ("1.5\n", "t.up:1: \"1.5\" is no whole number"),
            ("NaN\n", "t.up:1: \"NaN\" is no whole number"),
            ("1 2\n", "t.up:1: \"1 2\" is no whole number"),
            ("1000000000001\n", "t.up:1: \"1000000000001\" ms is over 10^9 s; cut"),
            ("99999999999999999999999\n", "t.up:1: \"99999999999999999999999\" ms is over"),
            (&crowd, "t.up:833334: over 10000000000000 bit/s at 7 ms; write ms"),
        ] {
            let refused = parse_loop(text).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn a_lap_that_ends_in_an_outage_keeps_its_length() {
        let curve = Curve::new(&[(0, 12_000_000), (NS_PER_MS, 0)], 5 * NS_PER_MS, AtEnd::Loop);
        assert_eq!(written(&curve.unwrap()), "1\n5\n");
    }

    #[test]
    fn what_would_not_fit_a_file_is_not_written() {
        let curve = Curve::new(&[(0, MAX_RATE_BPS)], MAX_TIME_NS / 1_000, AtEnd::Loop).unwrap();
        let refused = write("t", &curve, Vec::new()).unwrap_err().to_string();
        assert!(refused.starts_with("t: about 833333333333334 opportunities"), "{refused}");
    }

    proptest! {
        #[test]
        fn every_millisecond_delivers_what_mahimahi_does(
            mut schedule in prop::collection::vec(0..40u64, 1..30), last in 1..50u64,
        ) {
            schedule.sort_unstable();
            schedule.push(schedule[schedule.len() - 1].max(last));
            let text: String = schedule.iter().map(|ms| format!("{ms}\n")).collect();
            let curve = parse_loop(&text).unwrap();
            for now_ms in 0..200 {
                let bytes = curve.bytes(0, now_ms * NS_PER_MS);
                // Those at 0 recur with each lap's end; Mahimahi's first ones are wasted.
                prop_assert_eq!(bytes, mahimahi(&schedule, now_ms) * MTU_BYTES, "at {} ms", now_ms);
            }
        }

        #[test]
        fn a_written_curve_reads_back_within_an_opportunity(
            mut rates in prop::collection::vec(prop_oneof![Just(0), 1..400_000_000u64], 1..20),
            step_ms in 1..30u64,
        ) {
            if rates.iter().all(|rate| *rate == 0) {
                rates[0] = 1;
            }
            let step = step_ms * NS_PER_MS;
            let rows: Vec<_> = (0..).map(|i| i * step).zip(rates).collect();
            let curve = Curve::new(&rows, rows.len() as u64 * step, AtEnd::Loop).unwrap();
            let back = parse_loop(&written(&curve)).unwrap();
            prop_assert_eq!(back.duration_ns(), curve.duration_ns());
            let period_ms = curve.duration_ns() / NS_PER_MS;
            for ms in 0..=period_ms {
                let there = |curve: &Curve| curve.bytes(0, ms * NS_PER_MS);
                let off = there(&curve).abs_diff(there(&back));
                // The line that marks the period may be one too many.
                let most = if ms == period_ms { MTU_BYTES } else { MTU_BYTES - 1 };
                prop_assert!(off <= most, "{} at {} ms", off, ms);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", lines in "[0-9\\r\\n# -]{0,100}") {
            let _ = parse_loop(&text);
            let _ = parse("t", &lines, AtEnd::Hold);
        }
    }
}
