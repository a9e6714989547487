//! What travels: positions in a flow, not the bytes themselves.

/// Names one direction of one connection; the two of a connection differ in the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub(super) u64);

impl FlowId {
    /// The other direction of the same connection.
    pub fn reverse(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// A packet in a queue or in the air.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    /// Bytes on the link, headers included.
    pub(super) wire: u32,
    /// When the sender offered it, ns.
    pub(super) at: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Bytes `start..start + len` of a flow; the end of a stream counts as one byte. It may carry an
    /// acknowledgement of the reverse flow. `order`: its place in the order of sending.
    /// `stamp`: when the acknowledgement was sent that the sender had heard last.
    Data { flow: FlowId, start: u64, len: u32, order: u64, stamp: u64, ack: Option<AckPacket> },
    /// Answers the flow's data on the other direction.
    Ack(AckPacket),
    /// The three packets that open a connection, named by its uplink flow.
    Handshake { uplink: FlowId, step: u8 },
}

/// What the receiver of a flow has, as an acknowledgement with SACK blocks would say.
#[derive(Clone, Copy, Debug)]
pub(super) struct AckPacket {
    pub(super) flow: FlowId,
    /// All before this offset is there.
    pub(super) next: u64,
    /// The latest packet that is there, in the order of sending.
    pub(super) latest: u64,
    /// How many bytes are there in all.
    pub(super) delivered: u64,
    /// How far the receiver lets the sender go.
    pub(super) window_end: u64,
    /// `at` of the packet that is answered: the timestamp option of RFC 7323.
    pub(super) echo: u64,
}
