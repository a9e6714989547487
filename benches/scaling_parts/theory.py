"""The arithmetic of docs/scaling.md: what a queue of k threads makes requests wait."""

import math

# The load that one plans with: the rest is for chance, and for edges that are not spread evenly.
PLANNED = 0.8


def erlang_c(threads, offered):
    """Probability that a request finds all threads busy, in M/M/k; `offered` is the load in threads."""
    blocked = 1.0
    for number in range(1, threads + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / threads * (1 - blocked))


def mean_wait_s(threads, load, service_s, variation=0.0):
    """Of M/G/k, by Erlang's C and the variation of the service times (their variance over their mean's square; 0 in
    M/D/k). Exact for one thread (Pollaczek and Khinchine), for more an approximation (Allen and Cunneen). `load` is
    the share of the time in which a thread computes."""
    if load >= 1:
        return math.inf
    in_exponential = erlang_c(threads, load * threads) * service_s / (threads * (1 - load))
    return in_exponential * (1 + variation) / 2


def replicas(edges, rate, service_s, threads, load=1.0):
    """That have this load, as a number with a fraction."""
    return edges * rate * service_s / (threads * load)


def variation(service_s):
    mean = sum(service_s) / len(service_s)
    return sum((one - mean) ** 2 for one in service_s) / len(service_s) / mean ** 2
