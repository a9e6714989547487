//! The trace as a table that any plotting tool opens:
//!
//! ```text
//! time_s,uplink_bps,downlink_bps,rtt_ms
//! 0,21400000,310500000,20.4
//! 0.1,19900000,288000000,20.6
//! ```
//!
//! Times are kept to the nanosecond and rates to the bit/s, so that a trace written and
//! read back is the same trace.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use super::Trace;
use super::curve::{Curve, MAX_RATE_BPS, MAX_TIME_NS};
use super::error::{TraceError, excerpt};
use super::file::lines;
use super::lap::AtEnd;
use super::series::Series;

/// Longest round trip accepted, ms.
const MAX_RTT_MS: f64 = 1_000_000.0;
/// How long a trace of a single row is, ns.
const LONE_ROW_NS: u64 = 1_000_000_000;
const HEADER: &str = "time_s,uplink_bps,downlink_bps,rtt_ms";

/// What the header promises of the rows.
struct Columns {
    time: &'static str,
    /// ns in a unit of `time`, as a power of ten.
    digits: usize,
    count: usize,
}

struct Row {
    time_ns: u64,
    uplink_bps: u64,
    downlink_bps: u64,
    rtt_ms: Option<f64>,
}

/// See [`Trace::parse_csv`].
pub(super) fn parse(file: &str, text: &str, at_end: AtEnd) -> Result<Trace, TraceError> {
    let mut lines = lines(text);
    let Some((number, line)) = lines.next() else {
        return Err(TraceError::at_line(file, 1, "empty", format!("start with {HEADER}")));
    };
    let columns = header(line)
        .map_err(|what| TraceError::at_line(file, number, what, format!("write {HEADER}")))?;
    let mut rows: Vec<Row> = Vec::new();
    let mut last_line = number;
    for (number, line) in lines {
        let refuse = |(what, remedy): Refusal| TraceError::at_line(file, number, what, remedy);
        let row = row(line, &columns).map_err(refuse)?;
        follows(rows.last(), &row, &columns).map_err(refuse)?;
        rows.push(row);
        last_line = number;
    }
    if rows.is_empty() {
        return Err(TraceError::at_line(file, number, "no rows", "add a row below the header"));
    }
    let length_ns = length(&rows);
    let curve = |column: &str, rate: fn(&Row) -> u64| {
        let rows: Vec<_> = rows.iter().map(|row| (row.time_ns, rate(row))).collect();
        Curve::new(&rows, length_ns, at_end).map(Arc::new).map_err(|error| {
            let (what, remedy) = error.split_once("; ").unwrap_or((&error, "mend the row"));
            TraceError::at_line(file, last_line, format_args!("{column}: {what}"), remedy)
        })
    };
    let rtt = rows.iter().filter_map(|row| Some((row.time_ns, row.rtt_ms?))).collect();
    Ok(Trace {
        name: file.to_owned(),
        uplink: curve("uplink_bps", |row| row.uplink_bps)?,
        downlink: curve("downlink_bps", |row| row.downlink_bps)?,
        rtt: Series::new(rtt, length_ns, at_end),
    })
}

/// What is wrong, and what to do.
type Refusal = (String, String);

fn header(line: &str) -> Result<Columns, String> {
    let names: Vec<&str> = line.split(',').map(str::trim).collect();
    let (time, digits) = match names[0] {
        "time_s" => ("time_s", 9),
        "time_ms" => ("time_ms", 6),
        _ => return Err(format!("the header is {}", excerpt(line))),
    };
    match names[1..] {
        ["uplink_bps", "downlink_bps"] | ["uplink_bps", "downlink_bps", "rtt_ms"] => {
            Ok(Columns { time, digits, count: names.len() })
        }
        _ => Err(format!("the header is {}", excerpt(line))),
    }
}

fn row(line: &str, columns: &Columns) -> Result<Row, Refusal> {
    let count = line.split(',').count();
    if count != columns.count {
        let what = format!("{count} columns where the header has {}", columns.count);
        return Err((what, "write one field per column".to_owned()));
    }
    let mut fields = line.split(',').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    Ok(Row {
        time_ns: time(next(), columns)?,
        uplink_bps: number(next(), "uplink_bps", MAX_RATE_BPS as f64)?.round() as u64,
        downlink_bps: number(next(), "downlink_bps", MAX_RATE_BPS as f64)?.round() as u64,
        rtt_ms: match next() {
            "" => None,
            field => Some(number(field, "rtt_ms", MAX_RTT_MS)?),
        },
    })
}

fn follows(last: Option<&Row>, row: &Row, columns: &Columns) -> Result<(), Refusal> {
    match last {
        None if row.time_ns != 0 => {
            let what = format!("the first row is not at {} 0", columns.time);
            Err((what, "start at 0".to_owned()))
        }
        Some(last) if last.time_ns >= row.time_ns => {
            let what = format!("{} is not after that of the row before", columns.time);
            Err((what, "sort the rows by time and leave out repeated times".to_owned()))
        }
        _ => Ok(()),
    }
}

fn number(field: &str, column: &str, max: f64) -> Result<f64, Refusal> {
    let remedy = || format!("write a number from 0 to {max}");
    let value: f64 = field
        .parse()
        .map_err(|_| (format!("{column} is {}, no number", excerpt(field)), remedy()))?;
    if (0.0..=max).contains(&value) {
        Ok(value.abs()) // -0 is 0
    } else {
        Err((format!("{column} is {}", excerpt(field)), remedy()))
    }
}

/// In ns. Plain decimals are taken digit by digit: 10^9 s and 1 ns do not fit one f64.
fn time(field: &str, columns: &Columns) -> Result<u64, Refusal> {
    let unit = 10u64.pow(columns.digits as u32);
    let value = number(field, columns.time, (MAX_TIME_NS / unit) as f64)?;
    let (whole, part) = field.split_once('.').unwrap_or((field, ""));
    let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > columns.digits {
        return Ok((value * unit as f64).round() as u64);
    }
    let digits = format!("{part:0<width$}", width = columns.digits);
    let exact = whole.parse::<u64>().ok().zip(digits.parse::<u64>().ok());
    Ok(exact.map_or(MAX_TIME_NS, |(whole, part)| (whole * unit + part).min(MAX_TIME_NS)))
}

fn length(rows: &[Row]) -> u64 {
    match rows {
        [.., before, last] => last.time_ns + (last.time_ns - before.time_ns),
        _ => LONE_ROW_NS,
    }
}

/// See [`Trace::write_csv`].
pub(super) fn write(trace: &Trace, out: impl Write) -> Result<(), TraceError> {
    let length_ns = trace.uplink.duration_ns();
    let laps = [Some(trace.uplink.lap()), Some(trace.downlink.lap())];
    let rtt_lap = trace.rtt.as_ref().map(Series::lap);
    if laps.into_iter().chain([rtt_lap]).flatten().any(|lap| lap.length_ns != length_ns) {
        return Err(TraceError::new(
            &trace.name,
            "its directions differ in length, and a row of a CSV has both",
            "write a Mahimahi pair, or cut them to one length",
        ));
    }
    rows(trace, length_ns, out).map_err(|error| {
        TraceError::new(&trace.name, format!("cannot be written: {error}"), "make room for it")
    })
}

fn rows(trace: &Trace, length_ns: u64, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    writeln!(out, "{HEADER}")?;
    for t in times(trace, length_ns) {
        let (up, down) = (trace.uplink.at(t).rate_bps, trace.downlink.at(t).rate_bps);
        write!(out, "{},{up},{down},", seconds(t))?;
        match &trace.rtt {
            Some(rtt) => writeln!(out, "{}", rtt.at(t))?,
            None => writeln!(out)?,
        }
    }
    out.flush()
}

/// When a row is due: whenever a value changes, and such that the last two rows tell the
/// length (see [`length`]).
fn times(trace: &Trace, length_ns: u64) -> BTreeSet<u64> {
    let rates = trace.uplink.rows().chain(trace.downlink.rows()).map(|row| row.0);
    let rtts = trace.rtt.iter().flat_map(Series::starts);
    let mut times: BTreeSet<u64> = rates.chain(rtts).collect();
    let last = times.last().copied().unwrap_or(0);
    let rest = length_ns - last;
    let before = times.iter().rev().nth(1).copied();
    let gap = before.map(|before| last - before);
    if gap == Some(rest) || (gap.is_none() && length_ns == LONE_ROW_NS) {
        return times;
    }
    if gap > Some(rest) {
        times.insert(last - rest);
    } else if rest > 1 {
        let odd = rest % 2;
        times.insert(last + odd);
        times.insert(last + odd + (rest - odd) / 2);
    }
    times
}

fn seconds(t_ns: u64) -> String {
    let text = format!("{}.{:09}", t_ns / 1_000_000_000, t_ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_loop(text: &str) -> Result<Trace, TraceError> {
        parse("t.csv", text, AtEnd::Loop)
    }

    fn written(trace: &Trace) -> String {
        let mut bytes = Vec::new();
        write(trace, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn comments_blank_lines_crlf_and_milliseconds_are_read() {
        let text = "\u{feff}# made by hand\r\n\r\ntime_ms, uplink_bps,downlink_bps,rtt_ms\r\n\
                    0,8e3,16000,20\r\n# outage\r\n2.5,0,32000.4,\r\n";
        let trace = parse_loop(text).unwrap();
        assert_eq!(trace.uplink.duration_ns(), 5_000_000, "the last row lasts 2.5 ms too");
        assert_eq!(trace.uplink.at(0).until_ns, 2_500_000);
        assert_eq!(trace.downlink.at(4_000_000).rate_bps, 32_000);
        assert_eq!(trace.rtt.unwrap().at(4_000_000), 20.0, "an empty field holds the value");
        let plain = parse_loop("time_s,uplink_bps,downlink_bps\n0,1,1\n").unwrap();
        assert_eq!((plain.rtt, plain.uplink.duration_ns()), (None, LONE_ROW_NS));
    }

    #[test]
    fn bad_lines_are_refused_with_file_line_and_remedy() {
        let head = "time_s,uplink_bps,downlink_bps,rtt_ms\n";
        for (rows, expected) in [
            ("0,-5,1,", "t.csv:2: uplink_bps is \"-5\"; write a number from 0 to 10000000000000"),
            ("0,1,NaN,", "t.csv:2: downlink_bps is \"NaN\"; write"),
            ("0,1,inf,", "t.csv:2: downlink_bps is \"inf\"; write"),
            ("0,1,1e14,", "t.csv:2: downlink_bps is \"1e14\"; write"),
            ("0,fast,1,", "t.csv:2: uplink_bps is \"fast\", no number; write"),
            ("0,,1,", "t.csv:2: uplink_bps is \"\", no number; write"),
            ("0,1,1,-1", "t.csv:2: rtt_ms is \"-1\"; write a number from 0 to 1000000"),
            ("0,1,1", "t.csv:2: 3 columns where the header has 4; write"),
            ("0,1,1,1,1", "t.csv:2: 5 columns where the header has 4; write"),
            ("1,1,1,", "t.csv:2: the first row is not at time_s 0; start at 0"),
            ("0,1,1,\n0,1,1,", "t.csv:3: time_s is not after that of the row before; sort"),
            ("0,1,1,\n2,1,1,\n1,1,1,", "t.csv:4: time_s is not after"),
            (
                "0,1,1,\n1e10,1,1,",
                "t.csv:3: time_s is \"1e10\"; write a number from 0 to 1000000000",
            ),
            ("0,0,1,\n1,0,1,", "t.csv:3: uplink_bps: the rate is 0 throughout"),
            ("", "t.csv:1: no rows; add a row"),
        ] {
            let refused = parse_loop(&format!("{head}{rows}")).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
        for text in ["", "\n# nothing\n"] {
            let refused = parse_loop(text).unwrap_err().to_string();
            assert_eq!(refused, format!("t.csv:1: empty; start with {HEADER}"));
        }
        let refused = parse_loop("0,1,2,3\n").unwrap_err().to_string();
        assert!(refused.starts_with("t.csv:1: the header is \"0,1,2,3\"; write time_s,"));
        let held = parse("t.csv", &format!("{head}0,1,1,\n1,1,0,"), AtEnd::Hold).unwrap_err();
        assert!(held.to_string().contains("t.csv:3: downlink_bps: the last row has rate 0"));
    }

    #[test]
    fn directions_of_different_length_cannot_share_rows() {
        let curve = |length| Arc::new(Curve::new(&[(0, 8)], length, AtEnd::Loop).unwrap());
        let trace =
            Trace { name: "odd".to_owned(), uplink: curve(2), downlink: curve(3), rtt: None };
        let refused = write(&trace, Vec::new()).unwrap_err().to_string();
        assert!(refused.starts_with("odd: its directions differ in length"), "{refused}");
    }

    fn traces() -> impl Strategy<Value = Trace> {
        let gap = prop_oneof![1..5u64, 1..=2_000_000_000u64, Just(100_000_000)];
        let rate = || prop_oneof![1 => Just(7u64), 2 => 1..=MAX_RATE_BPS];
        let rtt = prop::option::of(0.0..MAX_RTT_MS);
        let rows = prop::collection::vec((gap, rate(), rate(), rtt), 1..20);
        let end = prop_oneof![Just(AtEnd::Loop), Just(AtEnd::Hold)];
        (rows, 2..2_000_000_000u64, end).prop_map(|(rows, tail, end)| {
            let starts: Vec<u64> = rows
                .iter()
                .scan(0, |at, row| {
                    *at += row.0;
                    Some(*at - rows[0].0)
                })
                .collect();
            let length = starts[starts.len() - 1] + tail;
            let curve = |rates: Vec<u64>| {
                let rows: Vec<_> = starts.iter().copied().zip(rates).collect();
                Arc::new(Curve::new(&rows, length, end).unwrap())
            };
            let rtt = starts.iter().zip(&rows).filter_map(|(t, row)| Some((*t, row.3?)));
            Trace {
                name: "t.csv".to_owned(),
                uplink: curve(rows.iter().map(|row| row.1).collect()),
                downlink: curve(rows.iter().map(|row| row.2).collect()),
                rtt: Series::new(rtt.collect(), length, end),
            }
        })
    }

    proptest! {
        #[test]
        fn a_written_trace_reads_back_equal(trace in traces()) {
            let end = trace.uplink.lap().at_end;
            let text = written(&trace);
            let back = parse("t.csv", &text, end).unwrap();
            prop_assert_eq!(&back, &trace);
            prop_assert_eq!(written(&back), text);
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", rows in "[-0-9.,eE+\\r\\n# nai]{0,200}") {
            let _ = parse_loop(&text);
            let _ = parse_loop(&format!("{HEADER}\n{rows}"));
        }

        #[test]
        fn times_are_exact_to_the_nanosecond(t in 0..=MAX_TIME_NS) {
            let columns = Columns { time: "time_s", digits: 9, count: 4 };
            prop_assert_eq!(time(&seconds(t), &columns).unwrap(), t);
        }
    }
}
