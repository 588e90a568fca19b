#!/usr/bin/env python3
"""How soon all gateways know a revocation: three of them on one Redis, as binaries.

Logs somebody in, uses the session on every gateway, logs out on one, and asks the
others over and over until they refuse; again and again. Prints the times from the
moment that the logout was sent, and from its answer, until each other gateway has
refused for the first time, and fails when one lets a request pass later than that.

Needs redis-server, openssl and a build:
    benches/feed/spread.py --bindgate target/release/bindgate
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

PASSWORD = "a password for nobody"
GATEWAYS = 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def upstream():
    """Answers every request with 204, on as many connections as come."""
    import threading

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(connection):
        held = b""
        while data := connection.recv(65536):
            held += data
            while b"\r\n\r\n" in held:
                held = held.split(b"\r\n\r\n", 1)[1]
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def configuration(folder, name, port, redis, backend):
    home = folder / name
    home.mkdir()
    config = home / "bindgate.toml"
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
public_origin = "https://localhost"
workers = 1
[server.tls]
certificate_file = "{folder}/tls.crt"
private_key_file = "{folder}/tls.key"
[telemetry]
listen = "127.0.0.1:0"
log_level = "warn"
audit_requests = false
audit_required = false
[directory]
kind = "file"
users_file = "{folder}/users.toml"
[[directory.role]]
name = "staff"
[token]
delivery = "bearer"
keys_dir = "{home}/keys"
[throttle]
login_per_user = "10000 per 15m"
login_per_address = "10000 per 5m"
[store]
kind = "redis"
urls = ["redis://127.0.0.1:{redis}/0"]
encryption_key_file = "{folder}/store.key"
[[upstream]]
name = "backend"
urls = ["http://127.0.0.1:{backend}"]
[[route]]
path = "/**"
access = "authenticated"
upstream = "backend"
""")
    return config


class Gateway:
    def __init__(self, folder, name, binary, redis, backend):
        self.port = free_port()
        config = configuration(folder, name, self.port, redis, backend)
        self.log = open(folder / f"{name}.log", "w")
        self.process = subprocess.Popen([binary, "serve", "--config", str(config)],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("bindgate ready"):
            raise SystemExit((folder / f"{name}.log").read_text())
        self.connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=ssl._create_unverified_context(), timeout=10)

    def ask(self, method, path, session=None, body=None):
        headers = {"Host": "localhost", "Sec-Fetch-Site": "same-origin"}
        if session:
            headers |= {"Authorization": f"Bearer {session[0]}", "Cookie": session[1]}
        if body:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, body=body and json.dumps(body), headers=headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def login(gateway):
    answer, body = gateway.ask("POST", "/auth/login", body={"username": "cora", "password": PASSWORD})
    if answer.status != 200:
        raise SystemExit(f"login: {answer.status} {body}")
    cookies = answer.headers.get_all("Set-Cookie")
    return json.loads(body)["token"], "; ".join(cookie.split(";", 1)[0] for cookie in cookies)


def measure(gateways, rounds):
    sent_to_known, answered_to_known = [], []
    for number in range(rounds):
        ender = gateways[number % len(gateways)]
        others = [gateway for gateway in gateways if gateway is not ender]
        session = login(ender)
        for gateway in gateways:
            status = gateway.ask("GET", "/page", session)[0].status
            assert status == 204, status
        sent = time.monotonic()
        status = ender.ask("POST", "/auth/logout", session)[0].status
        answered = time.monotonic()
        assert status == 204, status
        left = set(others)
        while left:
            for gateway in list(left):
                if gateway.ask("GET", "/page", session)[0].status == 401:
                    left.remove(gateway)
                    # It knew at the latest when it answered.
                    now = time.monotonic()
                    sent_to_known.append(now - sent)
                    answered_to_known.append(now - answered)
                elif time.monotonic() - answered > 5:
                    raise SystemExit("a gateway has not heard of it after 5 s")
        for gateway in gateways:
            assert gateway.ask("GET", "/page", session)[0].status == 401, "it lives again"
    return sent_to_known, answered_to_known


def told(what, times):
    times = sorted(times)
    at = lambda part: f"{1000 * times[int((len(times) - 1) * part)]:.1f}"
    print(f"| {what} | {len(times)} | {at(0.5)} | {at(0.9)} | {at(0.99)} | {at(1)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--bindgate", default="target/release/bindgate")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bindgate-spread-"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "tls.key", "-out",
                    folder / "tls.crt"], check=True, capture_output=True)
    hashed = subprocess.run([arguments.bindgate, "users", "hash"], input=PASSWORD, text=True,
                            capture_output=True, check=True).stdout.strip()
    (folder / "users.toml").write_text(f'[[user]]\nname = "cora"\npassword_hash = "{hashed}"\nroles = ["staff"]\n')
    key = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, check=True, text=True).stdout
    (folder / "store.key").write_text(key)
    for name in ("tls.key", "users.toml", "store.key"):
        os.chmod(folder / name, 0o600)
    port, backend = free_port(), upstream()
    redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                              "--dir", str(folder)], stdout=subprocess.DEVNULL)
    gateways = []
    try:
        time.sleep(0.5)
        for number in range(GATEWAYS):
            gateways.append(Gateway(folder, f"gateway-{number}", arguments.bindgate, port, backend))
        measure(gateways, 5)
        sent, answered = measure(gateways, arguments.rounds)
        print("| milliseconds until another gateway refuses | times | median | 90 % | 99 % | longest |")
        print("|---|--:|--:|--:|--:|--:|")
        told("from the request that ends the session", sent)
        told("from its answer", answered)
    finally:
        for gateway in gateways:
            gateway.stop()
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
