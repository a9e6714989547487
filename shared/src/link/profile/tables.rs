//! The file as it is written: every key optional where it has a default, every value with its place.

use serde::Deserialize;
use toml::Spanned;

pub(super) type Number = Option<Spanned<f64>>;
pub(super) type Whole = Option<Spanned<i64>>;
pub(super) type Text = Option<Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) description: Spanned<String>,
    pub(super) sources: Spanned<Vec<String>>,
    pub(super) packet: Option<PacketTable>,
    pub(super) transport: Option<TransportTable>,
    pub(super) air: Option<Spanned<AirTable>>,
    pub(super) uplink: Option<Spanned<DirectionTable>>,
    pub(super) downlink: Option<Spanned<DirectionTable>>,
    pub(super) outage: Option<Spanned<OutageTable>>,
    pub(super) trace: Option<Spanned<TraceTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PacketTable {
    pub(super) mtu_bytes: Whole,
    pub(super) overhead_bytes: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransportTable {
    pub(super) kind: Text,
    pub(super) initial_window: Whole,
    pub(super) handshake: Option<bool>,
    pub(super) slow_start_after_idle: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AirTable {
    pub(super) numerology: Whole,
    pub(super) tdd: Text,
    pub(super) special_symbols: Option<Spanned<SpecialTable>>,
    pub(super) bandwidth_mhz: Whole,
    pub(super) frequency_range: Text,
    pub(super) grant: Option<Spanned<GrantTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpecialTable {
    pub(super) downlink: Whole,
    pub(super) guard: Whole,
    pub(super) uplink: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantTable {
    pub(super) kind: Text,
    pub(super) period_slots: Whole,
    pub(super) processing_slots: Whole,
    pub(super) data_slots: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectionTable {
    pub(super) rate_mbps: Number,
    pub(super) layers: Whole,
    pub(super) mcs: Whole,
    pub(super) mcs_table: Text,
    pub(super) modulation_order: Whole,
    pub(super) code_rate: Number,
    pub(super) delay_ms: Number,
    pub(super) queue_bytes: Whole,
    pub(super) queue_ms: Number,
    pub(super) burst_bytes: Whole,
    pub(super) jitter: Option<Spanned<JitterTable>>,
    pub(super) harq: Option<Spanned<HarqTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JitterTable {
    pub(super) kind: Text,
    pub(super) std_ms: Number,
    pub(super) mean_ms: Number,
    pub(super) shape: Number,
    pub(super) path: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HarqTable {
    pub(super) bler: Number,
    pub(super) round_ms: Number,
    pub(super) max_rounds: Whole,
    pub(super) combining_gain: Number,
    pub(super) rlc_ms: Number,
    pub(super) block_bytes: Whole,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutageTable {
    pub(super) every_s: Number,
    pub(super) duration_ms: Number,
    pub(super) spread_ms: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceTable {
    pub(super) csv: Text,
    pub(super) uplink_opportunities: Text,
    pub(super) downlink_opportunities: Text,
    pub(super) at_end: Text,
}
