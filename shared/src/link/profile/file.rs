//! From a file's text to a profile.

use std::{fs, path::Path, sync::Arc};

use toml::Spanned;

use super::{
    super::{
        nr::{Air, Carrier, FrequencyRange, Grant, McsTable, Pattern, Way, mcs},
        trace::{AtEnd, Trace},
    },
    Direction, Harq, Jitter, Outage, Packet, Profile, ProfileError, Transport,
    check::Place,
    tables::{
        AirTable, DirectionTable, File, HarqTable, JitterTable, OutageTable, PacketTable,
        TraceTable, TransportTable,
    },
};

/// Queue where none is given: that long at the link's rate, ms, and at least that many bytes. Queues of
/// commercial cells hold hundreds of ms (Jiang et al., "Tackling Bufferbloat in 3G/4G Networks", IMC 2012).
const QUEUE_MS: f64 = 200.0;
const MIN_QUEUE_BYTES: f64 = 131_072.0;
/// Largest rate, Mbit/s, and delay, ms.
const MAX_MBPS: f64 = 1e6;
const MAX_MS: f64 = 60_000.0;

/// Reads a profile. `file` names it in messages; paths in it are relative to `folder`.
pub(super) fn parse(
    file: &str,
    name: &str,
    text: &str,
    folder: &Path,
) -> Result<Profile, ProfileError> {
    let place = Place { file, text };
    let tables: File = toml::from_str(text).map_err(|error| {
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        place.refuse(error.span().unwrap_or(0..0), "", message)
    })?;
    let reader = Reader { place, folder };
    reader.profile(name, &tables)
}

struct Reader<'a> {
    place: Place<'a>,
    folder: &'a Path,
}

/// What the carrier of the `[air]` table is, for rates that are derived.
type Band = Option<(u32, FrequencyRange)>;

impl Reader<'_> {
    fn profile(&self, name: &str, tables: &File) -> Result<Profile, ProfileError> {
        for (key, span, empty) in [
            (
                "description",
                tables.description.span(),
                tables.description.get_ref().trim().is_empty(),
            ),
            (
                "sources",
                tables.sources.span(),
                tables.sources.get_ref().iter().all(|s| s.trim().is_empty()),
            ),
        ] {
            if empty {
                return Err(self.place.refuse(
                    span,
                    key,
                    "is empty; say where the figures come from",
                ));
            }
        }
        let (air, band) = match &tables.air {
            Some(table) => {
                let (air, band) = self.air(table)?;
                (Some(air), band)
            }
            None => (None, None),
        };
        Ok(Profile {
            name: name.to_owned(),
            description: tables.description.get_ref().clone(),
            sources: tables.sources.get_ref().clone(),
            uplink: self.direction(Way::Uplink, &tables.uplink, air.as_ref(), band)?,
            downlink: self.direction(Way::Downlink, &tables.downlink, air.as_ref(), band)?,
            packet: self.packet(&tables.packet)?,
            transport: self.transport(&tables.transport)?,
            outage: tables.outage.as_ref().map(|table| self.outage(table)).transpose()?,
            trace: tables.trace.as_ref().map(|table| self.trace(table)).transpose()?,
            air,
        })
    }

    fn packet(&self, table: &Option<PacketTable>) -> Result<Packet, ProfileError> {
        let (mtu, overhead) =
            table.as_ref().map_or((&None, &None), |t| (&t.mtu_bytes, &t.overhead_bytes));
        Ok(Packet {
            mtu_bytes: self.place.whole("packet.mtu_bytes", mtu, 576..=9_000, 1_500)? as u32,
            overhead_bytes: self.place.whole("packet.overhead_bytes", overhead, 0..=1_000, 52)?
                as u32,
        })
    }

    fn transport(&self, table: &Option<TransportTable>) -> Result<Transport, ProfileError> {
        let tcp =
            Transport::Tcp { initial_window: 10, handshake: true, slow_start_after_idle: true };
        let Some(table) = table else { return Ok(tcp) };
        let window = &table.initial_window;
        let initial_window =
            self.place.whole("transport.initial_window", window, 1..=10_000, 10)?;
        let open =
            self.place.choice("transport.kind", &table.kind, &[("tcp", false), ("open", true)])?;
        if open {
            return Ok(Transport::Open);
        }
        Ok(Transport::Tcp {
            initial_window: initial_window as u32,
            handshake: table.handshake.unwrap_or(true),
            slow_start_after_idle: table.slow_start_after_idle.unwrap_or(true),
        })
    }

    fn air(&self, table: &Spanned<AirTable>) -> Result<(Air, Band), ProfileError> {
        let (span, table) = (table.span(), table.get_ref());
        let place = &self.place;
        place.needed(&table.numerology, span.clone(), "air.numerology")?;
        let numerology = place.whole("air.numerology", &table.numerology, 0..=4, 0)? as u8;
        let special = match &table.special_symbols {
            None => [10, 2, 2],
            Some(table) => {
                let table = table.get_ref();
                let part = |key, value| place.whole(key, value, 0..=14, 0).map(|n| n as u32);
                [
                    part("air.special_symbols.downlink", &table.downlink)?,
                    part("air.special_symbols.guard", &table.guard)?,
                    part("air.special_symbols.uplink", &table.uplink)?,
                ]
            }
        };
        let pattern = match &table.tdd {
            None => None,
            Some(text) => Some(
                Pattern::parse(text.get_ref(), special)
                    .map_err(|problem| place.refuse(text.span(), "air.tdd", problem))?,
            ),
        };
        let range = [("FR1", FrequencyRange::Fr1), ("FR2", FrequencyRange::Fr2)];
        let range = place.choice("air.frequency_range", &table.frequency_range, &range)?;
        let mhz = place.whole("air.bandwidth_mhz", &table.bandwidth_mhz, 5..=400, 0)? as u32;
        let band = (mhz > 0).then_some((mhz, range));
        Ok((Air { numerology, pattern, grant: self.grant(table)? }, band))
    }

    fn grant(&self, table: &AirTable) -> Result<Grant, ProfileError> {
        let Some(grant) = &table.grant else {
            return Ok(Grant::Request { period_slots: 10, processing_slots: 4, data_slots: 4 });
        };
        let grant = grant.get_ref();
        let slots = |key, value, least, default| {
            self.place.whole(key, value, least..=10_240, default).map(|n| n as u32)
        };
        let period_slots = slots("air.grant.period_slots", &grant.period_slots, 1, 10)?;
        let kinds = [("request", false), ("configured", true)];
        if self.place.choice("air.grant.kind", &grant.kind, &kinds)? {
            return Ok(Grant::Configured { period_slots });
        }
        Ok(Grant::Request {
            period_slots,
            processing_slots: slots("air.grant.processing_slots", &grant.processing_slots, 0, 4)?,
            data_slots: slots("air.grant.data_slots", &grant.data_slots, 0, 4)?,
        })
    }

    fn direction(
        &self,
        way: Way,
        table: &Option<Spanned<DirectionTable>>,
        air: Option<&Air>,
        band: Band,
    ) -> Result<Direction, ProfileError> {
        let name = if way == Way::Uplink { "uplink" } else { "downlink" };
        let Some(table) = table else {
            return Ok(Direction {
                rate_bps: 0,
                delay_ms: 0.0,
                jitter: Jitter::None,
                queue_bytes: MIN_QUEUE_BYTES as u64,
                burst_bytes: 0,
                harq: None,
            });
        };
        let key = |key: &str| format!("{name}.{key}");
        let rate_bps = self.rate(way, name, table, air, band)?;
        let table = table.get_ref();
        let queue_ms =
            self.place.number(&key("queue_ms"), &table.queue_ms, 0.1..=MAX_MS, QUEUE_MS)?;
        let mut queue = rate_bps as f64 / 8e3 * queue_ms;
        if table.queue_ms.is_none() {
            queue = queue.max(MIN_QUEUE_BYTES);
        }
        let most = 1 << 40;
        let queue_bytes = &table.queue_bytes;
        Ok(Direction {
            rate_bps,
            delay_ms: self.place.number(&key("delay_ms"), &table.delay_ms, 0.0..=MAX_MS, 0.0)?,
            jitter: self.jitter(name, table.jitter.as_ref())?,
            queue_bytes: self.place.whole(
                &key("queue_bytes"),
                queue_bytes,
                1..=most,
                queue as i64,
            )? as u64,
            burst_bytes: self.place.whole(&key("burst_bytes"), &table.burst_bytes, 0..=most, 0)?
                as u64,
            harq: table.harq.as_ref().map(|table| self.harq(name, table)).transpose()?,
        })
    }

    /// The plain number, or TS 38.306's formula times TDD's share.
    fn rate(
        &self,
        way: Way,
        name: &str,
        table: &Spanned<DirectionTable>,
        air: Option<&Air>,
        band: Band,
    ) -> Result<u64, ProfileError> {
        let (span, table) = (table.span(), table.get_ref());
        let key = |key: &str| format!("{name}.{key}");
        if let Some(rate) = &table.rate_mbps {
            let mbps =
                self.place.number(&key("rate_mbps"), &table.rate_mbps, 0.0..=MAX_MBPS, 0.0)?;
            // 1 bit/s would be 8 s a byte: a slip of the unit.
            if mbps > 0.0 && mbps < 1e-3 {
                return Err(self.place.refuse(
                    rate.span(),
                    &key("rate_mbps"),
                    format!(
                        "{mbps} is out of range; allowed: 0 (not limited), 0.001 to {MAX_MBPS}"
                    ),
                ));
            }
            return Ok((mbps * 1e6).round() as u64);
        }
        if table.layers.is_none() {
            return Ok(0);
        }
        let (Some(air), Some((bandwidth_mhz, range))) = (air, band) else {
            return Err(self.place.refuse(
                span,
                &key("layers"),
                "needs [air] with bandwidth_mhz, or give rate_mbps",
            ));
        };
        let (modulation_order, code_rate) = self.scheme(name, span.clone(), table)?;
        let carrier = Carrier {
            bandwidth_mhz,
            numerology: air.numerology,
            range,
            layers: self.place.whole(&key("layers"), &table.layers, 1..=8, 1)? as u32,
            modulation_order,
            code_rate,
        };
        let peak = carrier.peak_bps(way).ok_or_else(|| {
            let problem = format!(
                "no carrier of {bandwidth_mhz} MHz at numerology {} in TS 38.101; give rate_mbps",
                air.numerology
            );
            self.place.refuse(span, &key("layers"), problem)
        })?;
        Ok((peak * air.duty(way)).round() as u64)
    }

    fn scheme(
        &self,
        name: &str,
        span: std::ops::Range<usize>,
        table: &DirectionTable,
    ) -> Result<(u32, f64), ProfileError> {
        let key = |key: &str| format!("{name}.{key}");
        let Some(index) = &table.mcs else {
            self.place.needed(&table.modulation_order, span, &key("modulation_order"))?;
            let order =
                self.place.whole(&key("modulation_order"), &table.modulation_order, 1..=10, 2)?;
            let rate = &table.code_rate;
            let code_rate =
                self.place.number(&key("code_rate"), rate, 0.01..=1.0, 948.0 / 1024.0)?;
            return Ok((order as u32, code_rate));
        };
        let tables = [("256qam", McsTable::Qam256), ("64qam", McsTable::Qam64)];
        let scheme = self.place.choice(&key("mcs_table"), &table.mcs_table, &tables)?;
        let row = usize::try_from(*index.get_ref()).ok().and_then(|row| mcs(scheme, row));
        row.ok_or_else(|| {
            let problem =
                format!("{} is not in the table; allowed: 0 to 27 (256qam) or 28", index.get_ref());
            self.place.refuse(index.span(), &key("mcs"), problem)
        })
    }

    fn jitter(
        &self,
        name: &str,
        table: Option<&Spanned<JitterTable>>,
    ) -> Result<Jitter, ProfileError> {
        let Some(table) = table else { return Ok(Jitter::None) };
        let (span, table) = (table.span(), table.get_ref());
        let key = |key: &str| format!("{name}.jitter.{key}");
        let kinds = [("normal", 0), ("pareto", 1), ("file", 2)];
        match self.place.choice(&key("kind"), &table.kind, &kinds)? {
            0 => {
                self.place.needed(&table.std_ms, span, &key("std_ms"))?;
                Ok(Jitter::Normal {
                    std_ms: self.place.number(&key("std_ms"), &table.std_ms, 0.0..=MAX_MS, 0.0)?,
                })
            }
            1 => {
                self.place.needed(&table.mean_ms, span.clone(), &key("mean_ms"))?;
                self.place.needed(&table.shape, span, &key("shape"))?;
                Ok(Jitter::Pareto {
                    mean_ms: self.place.number(
                        &key("mean_ms"),
                        &table.mean_ms,
                        0.0..=MAX_MS,
                        0.0,
                    )?,
                    // At 1 and below the mean would be infinite.
                    shape: self.place.number(&key("shape"), &table.shape, 1.01..=100.0, 2.0)?,
                })
            }
            _ => self.samples(self.place.needed(&table.path, span, &key("path"))?, &key("path")),
        }
    }

    /// One delay in ms a line.
    fn samples(&self, path: &Spanned<String>, key: &str) -> Result<Jitter, ProfileError> {
        let file = self.folder.join(path.get_ref());
        let text = fs::read_to_string(&file).map_err(|e| {
            self.place.refuse(path.span(), key, format!("{}: cannot be read: {e}", file.display()))
        })?;
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let value: Option<f64> = line.parse().ok().filter(|v| (0.0..=MAX_MS).contains(v));
            samples.push(value.ok_or_else(|| ProfileError {
                place: format!("{}:{}", file.display(), index + 1),
                problem: format!("{line:?} is no delay; allowed: 0 to {MAX_MS} ms, one a line"),
            })?);
        }
        if samples.is_empty() {
            let problem = format!("{}: has no delays; write one a line, ms", file.display());
            return Err(self.place.refuse(path.span(), key, problem));
        }
        Ok(Jitter::Samples(samples.into()))
    }

    fn harq(&self, name: &str, table: &Spanned<HarqTable>) -> Result<Harq, ProfileError> {
        let (span, table) = (table.span(), table.get_ref());
        let key = |key: &str| format!("{name}.harq.{key}");
        let number = |name: &str, value, allowed, default| {
            self.place.number(&key(name), value, allowed, default)
        };
        self.place.needed(&table.bler, span, &key("bler"))?;
        Ok(Harq {
            bler: number("bler", &table.bler, 0.0..=0.99, 0.1)?,
            round_ms: number("round_ms", &table.round_ms, 0.0..=1_000.0, 8.0)?,
            max_rounds: self.place.whole(&key("max_rounds"), &table.max_rounds, 0..=31, 3)? as u32,
            combining_gain: number("combining_gain", &table.combining_gain, 0.0..=1.0, 0.3)?,
            rlc_ms: number("rlc_ms", &table.rlc_ms, 0.0..=10_000.0, 40.0)?,
            block_bytes: self.place.whole(
                &key("block_bytes"),
                &table.block_bytes,
                1..=10_000_000,
                10_000,
            )? as u32,
        })
    }

    fn outage(&self, table: &Spanned<OutageTable>) -> Result<Outage, ProfileError> {
        let (span, table) = (table.span(), table.get_ref());
        self.place.needed(&table.every_s, span.clone(), "outage.every_s")?;
        let duration = self.place.needed(&table.duration_ms, span, "outage.duration_ms")?;
        let duration_ms =
            self.place.number("outage.duration_ms", &table.duration_ms, 0.1..=3.6e6, 0.0)?;
        let outage = Outage {
            every_s: self.place.number("outage.every_s", &table.every_s, 0.001..=1e6, 0.0)?,
            duration_ms,
            spread_ms: self.place.number(
                "outage.spread_ms",
                &table.spread_ms,
                0.0..=duration_ms,
                0.0,
            )?,
        };
        if outage.duration_ms > outage.every_s * 1e4 {
            return Err(self.place.refuse(
                duration.span(),
                "outage.duration_ms",
                "is over ten times every_s: the link would hardly ever be there",
            ));
        }
        Ok(outage)
    }

    fn trace(&self, table: &Spanned<TraceTable>) -> Result<Arc<Trace>, ProfileError> {
        let (span, table) = (table.span(), table.get_ref());
        let ends = [("loop", AtEnd::Loop), ("hold", AtEnd::Hold)];
        let at_end = self.place.choice("trace.at_end", &table.at_end, &ends)?;
        let path = |text: &Spanned<String>| self.folder.join(text.get_ref());
        let trace = match (&table.csv, &table.uplink_opportunities, &table.downlink_opportunities) {
            (Some(csv), None, None) => Trace::read_csv(&path(csv), at_end),
            (None, Some(up), Some(down)) => Trace::read_mahimahi(&path(up), &path(down), at_end),
            _ => {
                let problem = "needs csv, or both uplink_opportunities and downlink_opportunities";
                return Err(self.place.refuse(span, "trace", problem));
            }
        };
        // The trace's own message names its file and line.
        trace.map(Arc::new).map_err(|error| ProfileError {
            place: error.place.clone(),
            problem: format!("{}; {}", error.what, error.remedy),
        })
    }
}
