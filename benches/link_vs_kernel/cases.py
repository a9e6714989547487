"""What is compared: the networks, the work, and how each side is told about them."""

from dataclasses import dataclass

SIZES = [1, 1 << 10, 100 << 10, 1 << 20, 20 << 20]
STREAMS = [1, 8]
# Ethernet 14, IPv4 20, TCP 20, timestamps 12: what tbf counts beside the payload of a full packet.
OVERHEAD = 66
# tbf's bucket, two full packets: what it lets through at once after a silence.
BURST = 2 * 1514


@dataclass(frozen=True)
class Network:
    rate_mbps: float
    rtt_ms: float

    @property
    def name(self):
        return f"{self.rate_mbps:g} Mbit/s, {self.rtt_ms:g} ms"

    @property
    def jitter_ms(self):
        """Standard deviation in each direction."""
        return self.rtt_ms * 0.02

    @property
    def queue_bytes(self):
        """Four times what fills the round trip, and at least 1.5 MB: a bloated queue, as cells have."""
        return max(1_500_000, int(4 * self.rate_mbps * 1e6 / 8 * self.rtt_ms / 1e3))

    def profile(self):
        """For `edge-node link --profile FILE`."""
        direction = (
            f"rate_mbps = {self.rate_mbps}\ndelay_ms = {self.rtt_ms / 2}\n"
            f"queue_bytes = {self.queue_bytes}\nburst_bytes = {BURST}\n"
            f'jitter = {{ kind = "normal", std_ms = {self.jitter_ms} }}\n'
        )
        return (
            f'description = "{self.name}"\nsources = ["benches/link-vs-kernel"]\n'
            f"[packet]\noverhead_bytes = {OVERHEAD}\n[uplink]\n{direction}[downlink]\n{direction}"
        )

    def tbf(self):
        return f"tbf rate {self.rate_mbps}mbit burst {BURST} limit {self.queue_bytes}"

    def netem(self):
        # With a rate netem queues each packet behind the one before, so that jitter keeps the order;
        # the rate itself is out of the way.
        return (
            f"netem limit 100000 delay {self.rtt_ms / 2}ms {self.jitter_ms}ms "
            f"distribution normal rate 40gbit"
        )


NETWORKS = [
    Network(5, 80),
    Network(20, 60),
    Network(50, 40),
    Network(100, 20),
    Network(400, 10),
    Network(1000, 5),
]


# Repetitions of each case in one round.
REPETITIONS = 50
SHORT_REPETITIONS = 5
# Our side repeats what takes long in so many links at once, by rate: together they keep one core busy
# for a small part, and each of them waits most of the time.
LANES = {5: 25, 20: 10, 50: 5, 100: 2}


@dataclass(frozen=True)
class Work:
    """The cases of one network."""

    network: Network
    cases: list
    repetitions: int = None

    @property
    def lanes(self):
        return 1 if self.repetitions else LANES.get(self.network.rate_mbps, 1)

    @property
    def settle_s(self):
        """Until the connections are silent."""
        return 1.5 * self.network.rtt_ms / 1e3 + 0.01

    def lines(self, lanes):
        """For `transfer.py measure`, when so many of them share the work."""
        count = -(-(self.repetitions or REPETITIONS) // lanes)
        return "".join(f"[{size}, {streams}, {count}]\n" for size, streams in self.cases)
