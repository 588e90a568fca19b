#!/usr/bin/env python3
"""The feed of revocations, simulated: one Redis, many gateways, each with one reader.

Every revocation is one script in Redis, which answers each waiting reader in turn; a
reader that has got news asks again. Arrivals are random (Poisson), networks take a
random time, and the same seed gives the same table. What an act costs Redis was
measured by calibrate.py; everything else is an assumption, stated below.

    benches/feed/simulate.py             prints the tables of docs/scaling.md
    benches/feed/simulate.py --seed 2    the same with other chances
"""

import argparse
import heapq
import random

# Measured by calibrate.py: microseconds of Redis's one thread, and bytes.
WRITE = 21.4            # a revocation: script, index, stream
WRITE_BULK = 4.5        # one of 500 that are ended together
DELIVER = 16.7          # an entry to one gateway that waits, and its next question
DELIVER_BYTES = 174
POLL = 13.8             # a question without news
BEAT = 34.5             # a gateway's sign of life
FULL = 0.83             # one revocation of all, to one gateway
FULL_BYTES = 43
REDIS_BYTES = 151       # of Redis's memory, a revocation
STREAM_BYTES = 41       # of Redis's memory, an entry of the stream
SESSION_BYTES = 1038    # of Redis's memory, a session
# Measured by benches/revocations.rs.
GATEWAY_BYTES = 24      # of a gateway's memory, a revocation

# As the gateway is built (src/store/redis).
STREAM = 1800           # seconds for which the stream keeps an entry
AT_ONCE = 1000          # entries that one answer holds
POLLS = 2               # questions a second without news
MARGIN = 3600           # seconds that revocations are remembered after the session
STALENESS = 60          # seconds, store.max_staleness

# Assumed.
LIFETIME = 12 * 3600    # seconds, token.session_lifetime
ENDED_EARLY = 0.3       # of all sessions, by logout, a new login or an operator
NETWORK = (100, 400)    # microseconds one way, between them evenly
TAKE = 30               # microseconds until a gateway has taken an answer in
EGRESS = 10e9 / 8       # bytes a second that Redis's machine can send
MORE = 0.5              # microseconds of Redis for each further entry of one answer
SIMULATED = 2e6         # microseconds


class Scenario:
    def __init__(self, gateways, sessions, pause=0):
        self.gateways, self.sessions, self.pause = gateways, sessions, pause
        self.rate = sessions / LIFETIME * ENDED_EARLY
        # Ended at any time of their lives alike, so remembered for half of them, and the margin.
        self.live = self.rate * (LIFETIME / 2 + MARGIN)

    def name(self):
        pause = f", {self.pause // 1000} ms pause" if self.pause else ""
        return f"{self.gateways} gateways, {self.sessions // 1_000_000} M sessions{pause}"


def simulate(scenario, seed):
    """How long each revocation took to reach all gateways, and what Redis did meanwhile."""
    chance = random.Random(seed)
    events, order = [], 0
    at = 0.0
    while True:
        at += chance.expovariate(scenario.rate / 1e6)
        if at > SIMULATED:
            break
        events.append((at, order, None))
        order += 1
    heapq.heapify(events)
    free, busy, messages, sent = 0.0, 0.0, 0, 0
    asked, written = [], []
    cursors, waiting = [0] * scenario.gateways, list(range(scenario.gateways))
    reached = []

    def answer(gateway, start, cost):
        nonlocal free, busy, messages, sent, order
        entries = min(len(written) - cursors[gateway], AT_ONCE)
        cost += MORE * (entries - 1)
        free, busy = start + cost, busy + cost
        there = free + chance.uniform(*NETWORK) + TAKE
        for entry in range(cursors[gateway], cursors[gateway] + entries):
            reached[entry] = max(reached[entry], there)
        cursors[gateway] += entries
        messages, sent = messages + 1, sent + DELIVER_BYTES * entries
        order += 1
        heapq.heappush(events, (there + scenario.pause + chance.uniform(*NETWORK), order, gateway))

    while events:
        at, _, gateway = heapq.heappop(events)
        start = max(at, free)
        if gateway is None:
            free, busy = start + WRITE, busy + WRITE
            asked.append(at)
            written.append(free)
            reached.append(0.0)
            ready, waiting = waiting, []
            for gateway in ready:
                answer(gateway, free, DELIVER)
        elif cursors[gateway] < len(written):
            answer(gateway, start, DELIVER)
        elif at <= SIMULATED:
            waiting.append(gateway)
    took = sorted(there - at for there, at in zip(reached, asked))
    seconds = max(SIMULATED, free) / 1e6
    upkeep = scenario.gateways * (POLLS * POLL + BEAT)
    return {
        "took": [took[int((len(took) - 1) * part)] / 1000 for part in (0.5, 0.99, 1)],
        "messages": messages / seconds,
        "bytes": sent / seconds,
        "busy": busy / seconds / 1e6 + upkeep / 1e6,
    }


def row(cells):
    print("| " + " | ".join(cells) + " |")


def size(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "TB"
    return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"


def table(scenarios, seed):
    row(["", *(scenario.name() for scenario in scenarios)])
    row(["---", *("--:" for _ in scenarios)])
    results = [simulate(scenario, seed) for scenario in scenarios]
    both = list(zip(scenarios, results))
    row(["revocations a second", *(f"{s.rate:.0f}" for s in scenarios)])
    row(["answers of Redis with news, a second", *(f"{r['messages']:.0f}" for r in results)])
    row(["bytes that Redis sends for them, a second", *(size(r["bytes"]) for r in results)])
    row(["of Redis's one thread", *(f"{100 * r['busy']:.0f} %" for r in results)])
    for number, name in enumerate(("median", "99 %", "longest")):
        row([f"until all gateways know: {name}", *(f"{r['took'][number]:.1f} ms" for r in results)])
    row(["live revocations", *(f"{s.live / 1e6:.2f} M" for s in scenarios)])
    row(["memory of each gateway for them", *(size(s.live * GATEWAY_BYTES) for s in scenarios)])
    row(["memory of Redis, revocations", *(size(s.live * REDIS_BYTES) for s in scenarios)])
    row(["memory of Redis, sessions", *(size(s.sessions * SESSION_BYTES) for s in scenarios)])
    row(["memory of Redis, the stream", *(size(s.rate * STREAM * STREAM_BYTES) for s in scenarios)])
    row(["one gateway reads all: bytes", *(size(s.live * FULL_BYTES) for s in scenarios)])
    row(["one gateway reads all: of Redis", *(f"{s.live * FULL / 1e6:.1f} s" for s in scenarios)])
    row(["all gateways read all, as after a fail-over", *(f"{full(s):.0f} s" for s in scenarios)])
    print()
    return both


def full(scenario):
    """Seconds until every gateway has read all revocations, when all begin at once."""
    count = scenario.gateways * scenario.live
    return max(count * FULL / 1e6, count * FULL_BYTES / EGRESS)


def limits(gateways):
    """At how many sessions something gives way, first things first."""
    per_session = ENDED_EARLY / LIFETIME
    live = per_session * (LIFETIME / 2 + MARGIN)
    upkeep = gateways * (POLLS * POLL + BEAT) / 1e6
    rounds = 20_000 / 1e6
    found = [
        ("after a fail-over all gateways read all for longer than `max_staleness`, and refuse requests meanwhile",
         STALENESS / max(FULL / 1e6, FULL_BYTES / EGRESS) / gateways / live),
        ("reading all takes longer than the stream reaches back: it begins again, and requests are refused, until it is shorter",
         STREAM / max(FULL / 1e6, FULL_BYTES / EGRESS) / gateways / live),
        ("Redis's one thread answers readers all the time, when each revocation is told alone",
         (1 - upkeep) * 1e6 / (WRITE + gateways * DELIVER) / per_session),
        ("Redis's one thread likewise, when readers pause 20 ms and get several at once",
         (1 - upkeep - gateways * DELIVER / 1e6 / rounds) * 1e6 / (WRITE + gateways * MORE) / per_session),
        ("Redis's 10 Gbit/s are full of news", EGRESS / DELIVER_BYTES / gateways / per_session),
        ("a gateway holds 1 GB of revocations", 1e9 / GATEWAY_BYTES / live),
        ("Redis's primary holds 64 GB (a cluster spreads the sessions, not the revocations)",
         64e9 / (SESSION_BYTES + live * REDIS_BYTES)),
    ]
    row([f"with {gateways} gateways, what gives way", "at sessions"])
    row(["---", "--:"])
    for what, sessions in sorted(found, key=lambda one: one[1]):
        row([what, f"{sessions / 1e6:.1f} M" if sessions < 1e8 else f"{sessions / 1e6:.0f} M"])
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    table([Scenario(3, 1_000_000), Scenario(10, 10_000_000), Scenario(100, 100_000_000),
           Scenario(100, 100_000_000, pause=20_000)], seed)
    everything = 100_000_000
    row(["all of 100 M sessions ended at once, 100 gateways", ""])
    row(["---", "--:"])
    row(["one by one: of Redis's thread", f"{everything * WRITE_BULK / 1e6:.0f} s"])
    row(["one by one: bytes that Redis sends", size(everything * 100 * 24)])
    row(["with `bindgate keys rotate --now`: messages until every token is dead", "100"])
    print()
    limits(10)
    limits(100)


if __name__ == "__main__":
    main()
