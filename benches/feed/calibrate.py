#!/usr/bin/env python3
"""What the feed of revocations costs a real Redis: the figures simulate.py begins with.

Starts a redis-server of its own on loopback, does there what gateways do, and divides
Redis's own CPU time and bytes by what was done. Needs redis-server (Debian: redis-server).

    benches/feed/calibrate.py
"""

import json
import os
import select
import socket
import subprocess
import tempfile
import time

# What src/store/redis/scripts.rs does with a revocation, and with a page of all of them.
REVOKE = b"""
local told = {}
for i = 2, #ARGV, 3 do
    if redis.call('ZADD', KEYS[1], 'GT', 'CH', ARGV[i + 1], ARGV[i]) == 1 then
        told[#told + 1] = ARGV[i + 2]
    end
end
if #told > 0 then
    local since = string.format('%.0f', (redis.call('TIME')[1] - 1800) * 1000)
    redis.call('XADD', KEYS[2], 'MINID', '~', since, '*', 'r', table.concat(told))
    for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return #told"""
PAGE = b"""
return redis.call('ZRANGE', KEYS[1], tonumber(ARGV[1]), ARGV[1] + 8191, 'WITHSCORES')"""
REVOKED, NEWS = b"{bindgate}:revoked", b"{bindgate}:news"
KEEP = b"34560000000"


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb")

    @staticmethod
    def packed(*parts):
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)

    def send(self, *parts):
        self.socket.sendall(self.packed(*parts))

    def answer(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise SystemExit(rest.decode())
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"$" and rest != b"-1":
            return self.reader.read(int(rest) + 2)[:-2]
        return rest

    def ask(self, *parts):
        self.send(*parts)
        return self.answer()

    def send_read(self, *block):
        # With every read it is asked whether the stream still reaches back to the cursor.
        read = self.packed("XREAD", "COUNT", 1000, *block, "STREAMS", NEWS, self.cursor)
        self.socket.sendall(read + self.packed("XREVRANGE", NEWS, self.cursor, "-", "COUNT", 1))

    def answer_read(self):
        news = self.answer()
        assert len(self.answer()) == 1
        return news


def spent(connection):
    info = dict(line.split(":", 1) for line in connection.ask("INFO", "all").decode().splitlines() if ":" in line)
    cpu = float(info["used_cpu_sys_main_thread"]) + float(info["used_cpu_user_main_thread"])
    return cpu, int(info["total_net_output_bytes"]), int(info["used_memory"])


def revocation(number):
    identity = os.urandom(16)
    until = int(time.time() * 1000) + number % 43_200_000
    return [identity, until, identity + until.to_bytes(8, "big")]


def measure(port):
    writer, figures = Connection(port), {}
    script = writer.ask("SCRIPT", "LOAD", REVOKE)
    page = writer.ask("SCRIPT", "LOAD", PAGE)

    def revoke(count):
        writer.ask("EVALSHA", script, 2, REVOKED, NEWS, KEEP, *sum((revocation(n) for n in range(count)), []))

    # Many at once, as they lie there anyway.
    before = spent(writer)
    for _ in range(2000):
        revoke(500)
    after = spent(writer)
    figures["bulk_us"] = (after[0] - before[0]) / 1_000_000 * 1e6
    figures["redis_bytes"] = (after[2] - before[2]) / 1_000_000

    # One by one.
    writer.ask("DEL", NEWS)
    before = spent(writer)
    for _ in range(20_000):
        revoke(1)
    figures["write_us"] = (spent(writer)[0] - before[0]) / 20_000 * 1e6
    figures["stream_bytes"] = int(writer.ask("MEMORY", "USAGE", NEWS, "SAMPLES", 0)) / 20_000

    # The same, with gateways that wait for news.
    readers = [Connection(port) for _ in range(50)]
    cursor = writer.ask("XREVRANGE", NEWS, "+", "-", "COUNT", 1)[0][0]
    for reader in readers:
        reader.cursor = cursor
        reader.send_read("BLOCK", 500)
    before, began = spent(writer), time.monotonic()
    told = 0
    for _ in range(2000):
        revoke(1)
        for reader in readers:
            entries = reader.answer_read()[0][1]
            told += len(entries)
            reader.cursor = entries[-1][0]
            reader.send_read("BLOCK", 500)
    after = spent(writer)
    figures["deliver_us"] = ((after[0] - before[0]) * 1e6 - 2000 * figures["write_us"]) / told
    figures["deliver_bytes"] = (after[1] - before[1]) / told
    figures["loopback_round_us"] = (time.monotonic() - began) / 2000 * 1e6

    # Gateways without news: a question every half second, a sign of life every second.
    for reader in readers:
        reader.answer_read()
    idle, before = 4000, spent(writer)
    for number in range(idle):
        reader = readers[number % 50]
        reader.send_read()
        reader.answer_read()
    figures["poll_us"] = (spent(writer)[0] - before[0]) / idle * 1e6
    before = spent(writer)
    for _ in range(idle):
        writer.ask("SET", "{bindgate}:alive", "1", "PX", KEEP)
        writer.ask("INFO", "replication")
        writer.ask("INFO", "replication")
    figures["beat_us"] = (spent(writer)[0] - before[0]) / idle * 1e6

    # Sessions: a record, its order, end and activity, and whose it is.
    before, made = spent(writer), 50_000
    for number in range(made):
        identity, bucket = os.urandom(16), b"{bindgate:%02x}:" % (number % 256)
        for command in (("HSET", bucket + b"records", identity, os.urandom(480)),
                        ("ZADD", bucket + b"order", 0, identity),
                        ("ZADD", bucket + b"ends", 1_790_000_000_000 + number, identity),
                        ("ZADD", bucket + b"active", 1_790_000_000_000, identity),
                        ("ZADD", b"{bindgate:%032x}:owned" % (number // 3), 1_790_000_000_000, identity)):
            writer.send(*command)
        for _ in range(5):
            writer.answer()
    figures["session_bytes"] = (spent(writer)[2] - before[2]) / made

    # Everything, page by page.
    before, read, began = spent(writer), 0, time.monotonic()
    while True:
        rows = writer.ask("EVALSHA", page, 1, REVOKED, read)
        if not rows:
            break
        read += len(rows) // 2
    after = spent(writer)
    figures["full_us"] = (after[0] - before[0]) / read * 1e6
    figures["full_bytes"] = (after[1] - before[1]) / read
    return figures


def main():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                  "--appendonly", "no", "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    Connection(port).socket.close()
                    break
                except OSError:
                    time.sleep(0.05)
            print(json.dumps({name: round(value, 2) for name, value in measure(port).items()}, indent=1))
        finally:
            redis.terminate()
            redis.wait()


if __name__ == "__main__":
    main()
