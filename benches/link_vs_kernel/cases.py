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


def repetitions(network, size, short):
    """In one round; long transfers are repeated less."""
    seconds = size * 8 / network.rate_mbps / 1e6 + 4 * network.rtt_ms / 1e3
    budget = 1.5 if short else 4.0
    return max(1, min(12 if short else 40, round(budget / seconds)))
