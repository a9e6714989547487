"""From the times of benches/wire to its tables."""

import statistics

import nodes
import verdicts
from verdicts import spread
from wire_parts import peers

MIN_OF_TCP, MIN_OF_GRPCIO, MAX_OF_TONIC = 0.85, 5.0, 1.15
# Below, a round trip is wake-ups of threads, and raw TCP has the fewest.
TCP_BAR_FROM = 1 << 20
PERCENTILES = {"p50": 0.5, "p99": 0.99}


def size(number):
    return f"{number >> 20} MiB" if number >= 1 << 20 else f"{number >> 10} KiB"


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratios(above, below):
    """In each round."""
    return [one / other for one, other in zip(above, below)]


def of_tcp(seen):
    """Our speed over raw TCP's."""
    return ratios(seen["tcp"], seen["split"])


def of_grpcio(seen):
    """Our speed over grpcio's."""
    return ratios(seen["grpcio"], seen["split"])


def percentiles(small, share):
    """Of each round, by client."""
    return {name: [quantile(times, share) for times in rounds] for name, rounds in small.items()}


def of_tonic(small, share):
    """Our time over bare tonic's."""
    seen = percentiles(small, share)
    return ratios(seen["cloud"], seen["tonic"])


def judged(trips, small):
    def trip(number, against, values, bar):
        return verdicts.judge(f"{size(number)} there and back: speed", against, values, "≥", bar)

    large = {number: seen for number, seen in trips.items() if number >= TCP_BAR_FROM}
    return [
        *(trip(number, "raw TCP", of_tcp(seen), MIN_OF_TCP) for number, seen in large.items()),
        *(trip(number, "grpcio", of_grpcio(seen), MIN_OF_GRPCIO) for number, seen in trips.items()),
        *(verdicts.judge(f"smallest request: {name}", "bare tonic", of_tonic(small, share), "≤", MAX_OF_TONIC)
          for name, share in PERCENTILES.items()),
    ]


def trips_table(trips):
    lines = ["| tensor | raw TCP, ms | bare tonic, ms | Cleave, ms | grpcio, ms | Cleave, MB/s | speed over raw TCP's "
             "| speed over grpcio's |", "|---" * 8 + "|"]
    for number, seen in trips.items():
        ms = [f"{statistics.median(seen[name]) / 1e3:.3f}" for name in ("tcp", "tonic", "split", "grpcio")]
        # Bytes in a µs are MB in a s.
        rate = f"{2 * number / statistics.median(seen['split']):.0f}"
        cells = [size(number), *ms, rate, spread(of_tcp(seen)), spread(of_grpcio(seen), 1)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def small_table(small):
    lines = ["| | bare tonic, µs | cloud node, µs | cloud node over bare tonic |", "|---" * 4 + "|"]
    for name, share in PERCENTILES.items():
        seen = percentiles(small, share)
        lines.append(f"| {name} | {spread(seen['tonic'], 1)} | {spread(seen['cloud'], 1)} "
                     f"| {spread(of_tonic(small, share))} |")
    return lines


def render(load, rounds, trips, small, request_bytes, judged):
    a_round = len(next(iter(small.values()))[0])
    lines = [
        "# The wire", "",
        f"{nodes.machine()}; load average at the beginning {load:.1f}. Made by `benches/wire`.", "",
        f"Round trips over loopback, one after the other, between two processes; {rounds} rounds, in which all take "
        "turns. The time of a round is its median; below are medians of the rounds, and for ratios, which are of the "
        "same round, the least and the most.", "",
        "* Cleave: an FP32 tensor through the edge's client (encode, call, decode) to a server that decodes it, "
        "encodes it and gives it back; in chunks of 1 MiB if it is larger.",
        "* raw TCP: the bytes behind their length on a blocking socket, read as a whole before they are sent back, "
        "into memory that is used again.",
        "* bare tonic: one message with one field of bytes, and tonic's own settings.",
        f"* grpcio {peers.pinned_grpcio()}, both ends in Python: bytes in, bytes out, without protobuf. That flatters "
        "it: a tensor would have to be serialised as well.", "",
        "A time ends when the whole answer is in memory; answers are checked and freed outside of it. MB/s counts both "
        "ways.", "",
        *trips_table(trips), "",
        "The smallest request: LeNet's last stage (128 values in, 10 out) on a cloud node, through the edge's client, "
        f"with a message of {request_bytes} bytes; against bare tonic with as many. {a_round} in a round.", "",
        *small_table(small), "",
        *verdicts.bars(judged),
    ]
    return "\n".join(lines) + "\n"
