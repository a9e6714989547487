//! What the process takes of its machine, under the names that Prometheus' own client libraries use.
//!
//! It is read from `/proc` whenever somebody asks; a system without it has none of these metrics. What comes of it is
//! text that goes behind the recorder's, whose counters are whole numbers: seconds of the processor are not.

use std::{
    fmt::{Display, Write},
    fs,
    sync::OnceLock,
};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// All there is to say now, in Prometheus' text format.
pub fn render() -> String {
    let mut text = String::new();
    let Some(stat) = Stat::read() else { return text };
    add(&mut text, "process_cpu_seconds_total", "counter", seconds(stat.processor_ticks));
    add(&mut text, "process_resident_memory_bytes", "gauge", stat.pages * page_size() as u64);
    add(&mut text, "process_virtual_memory_bytes", "gauge", stat.virtual_bytes);
    add(&mut text, "process_threads", "gauge", stat.threads);
    if let Some(boot) = boot_time() {
        add(&mut text, "process_start_time_seconds", "gauge", boot + seconds(stat.start_ticks));
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is what they are read through.
        add(&mut text, "process_open_fds", "gauge", files.count().saturating_sub(1));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        add(&mut text, "process_max_fds", "gauge", most);
    }
    text
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

fn add(text: &mut String, name: &str, kind: &str, value: impl Display) {
    let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}\n");
}

/// Of `/proc/self/stat`, as proc(5) has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// In the process and in the kernel on its behalf.
    processor_ticks: u64,
    threads: u64,
    /// Since the machine started.
    start_ticks: u64,
    virtual_bytes: u64,
    /// In memory.
    pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field, the program's name in brackets, may have blanks and brackets.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            processor_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            pages: field(24)?,
        })
    }
}

/// When the machine started, s since 1970. It is read once: who sets the clock moves it, and starts nothing anew.
fn boot_time() -> Option<f64> {
    static TIME: OnceLock<Option<f64>> = OnceLock::new();
    *TIME.get_or_init(|| {
        let text = fs::read_to_string("/proc/stat").ok()?;
        text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let text = "42 (odd) name) S 1 42 42 0 -1 4194304 900 0 3 0 250 50 7 9 20 0 12 0 3600 81920 15 8 1\n";
        let expected = Stat {
            processor_ticks: 300,
            threads: 12,
            start_ticks: 3600,
            virtual_bytes: 81920,
            pages: 15,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (name) S 1 42"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_measured_in_seconds_bytes_and_files() {
        use std::{
            hint::black_box,
            time::{Instant, SystemTime, UNIX_EPOCH},
        };

        // Whatever the kernel's own clock is, programs are told hundredths of a second.
        assert_eq!(seconds(250), 2.5);
        let value = |name: &str| -> f64 {
            let text = render();
            let found = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            found.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let (begin, before) = (Instant::now(), value("process_cpu_seconds_total"));
        while value("process_cpu_seconds_total") < before + 0.05 {
            assert!(begin.elapsed().as_secs() < 60, "no time of the processor is counted");
        }
        // Whole seconds of the machine's start are known.
        let lived = now() - value("process_start_time_seconds") + 2.0;
        assert!((0.0..86_400.0).contains(&lived), "{lived}");

        let memory = black_box(vec![1u8; 64 << 20]);
        let resident = value("process_resident_memory_bytes");
        assert!(resident >= memory.len() as f64, "{resident}");
        assert!(resident <= value("process_virtual_memory_bytes"));
        drop(memory);

        let open = || fs::File::open("/proc/self/stat").unwrap();
        let files: Vec<fs::File> = (0..100).map(|_| open()).collect();
        let count = value("process_open_fds");
        assert!(count > 100.0 && count <= value("process_max_fds"), "{count}");
        drop(files);
        assert!(value("process_threads") >= 1.0);
    }
}
