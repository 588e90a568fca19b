#!/usr/bin/env python3
"""CPU per forwarded request of bindgate beside nginx and HAProxy, in one run.

Every server is pinned to one core with one worker; the load generator and the
upstream run on the other. A round measures every server once, in turn; what is
compared are medians of ratios taken within one round, because absolute times
do not carry over from machine to machine, or from minute to minute.

Needs nginx, haproxy, wrk, h2load (nghttp2-client), openssl and a release build:
    cargo build --release
    benches/compare/compare.py --rounds 5 --seconds 4

What millions of revocations and sessions add to a request, a start and to memory:
    cargo bench --bench revocations -- --state /tmp/full.redb
    benches/compare/compare.py --state /tmp/full.redb --loads 1k-c64
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import tempfile
import time
import http.client

SERVER_CORE, LOAD_CORE = "0", "1"
SECRET = base64.urlsafe_b64encode(b"an HMAC key for HAProxy, 32 bytes").rstrip(b"=").decode()
CONTEXT = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
COOKIE = "__Host-bindgate-context"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key, kid):
    """A token as bindgate issues it, valid for an hour."""
    now = int(time.time())
    header = {"alg": "HS256", "kid": kid, "typ": "bindgate-session+jwt"}
    claims = {
        "sub": "carol",
        "role": "contact_tracer",
        "context": hashlib.sha256(CONTEXT.encode()).hexdigest(),
        "iat": now,
        "exp": now + 900,
        "sid": b64(bytes(range(16))),
        "jti": "1." + b64(bytes(range(12))),
    }
    body = ".".join(b64(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return body + "." + b64(hmac.new(key, body.encode(), hashlib.sha256).digest())


class Peer:
    """One server under test: how to start it, and which token it takes."""

    def __init__(self, name, folder, upstream):
        self.name, self.folder, self.upstream = name, folder, upstream
        self.port, self.process, self.token = free_port(), None, "none"
        self.context = COOKIE

    def spawn(self, *command, **options):
        self.process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, *command],
            stdout=subprocess.DEVNULL,
            stderr=open(self.folder / f"{self.name}.log", "w"),
            start_new_session=True,
            **options,
        )

    def await_port(self, port=None):
        began = time.monotonic()
        while time.monotonic() < began + 60:
            try:
                socket.create_connection(("127.0.0.1", port or self.port), 0.2).close()
                self.started_in = time.monotonic() - began
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.01)
        raise SystemExit(f"{self.name} did not start; see {self.folder}/{self.name}.log")

    def stop(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)

    def cpu_seconds(self):
        """User and system time of the whole process group."""
        total = 0
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid:
                total += int(fields[11]) + int(fields[12])
        return total / TICKS


class Nginx(Peer):
    def start(self):
        config = self.folder / f"{self.name}.conf"
        config.write_text(f"""
worker_processes 1; daemon off; pid {self.folder}/{self.name}.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {self.folder}; proxy_temp_path {self.folder};
 fastcgi_temp_path {self.folder}; uwsgi_temp_path {self.folder}; scgi_temp_path {self.folder};
 keepalive_requests 1000000000;
 upstream backend {{ server 127.0.0.1:{self.upstream}; keepalive 600; keepalive_requests 1000000000; }}
 server {{ listen 127.0.0.1:{self.port} ssl http2 reuseport;
  ssl_certificate {self.folder}/tls.crt; ssl_certificate_key {self.folder}/tls.key;
  ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;
  location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
   proxy_set_header Host $host; }} }} }}
""")
        self.spawn("nginx", "-c", str(config), "-p", str(self.folder))
        self.await_port()


class Haproxy(Peer):
    checks = ""

    def start(self):
        config = self.folder / f"{self.name}.cfg"
        config.write_text(f"""
global
 nbthread 1
 maxconn 4096
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 3s
frontend front
 bind 127.0.0.1:{self.port} ssl crt {self.folder}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3
{self.checks}
 default_backend back
backend back
 http-reuse always
 server one 127.0.0.1:{self.upstream}
""")
        self.spawn("haproxy", "-f", str(config))
        self.await_port()


class HaproxyJwt(Haproxy):
    """The same work as bindgate: algorithm, signature, expiry, context, identity headers."""

    checks = f"""
 http-request set-var(txn.bearer) http_auth_bearer
 http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
 http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
 http-request set-var(txn.context) var(txn.bearer),jwt_payload_query('$.context')
 http-request set-var(txn.now) date()
 http-request deny deny_status 401 unless {{ var(txn.alg) -m str HS256 }}
 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{SECRET}") 1 }}
 http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
 http-request deny deny_status 401 unless {{ req.cook({COOKIE}),sha2(256),hex,lower,strcmp(txn.context) eq 0 }}
 http-request set-header X-Auth-User %[var(txn.bearer),jwt_payload_query('$.sub')]
 http-request set-header X-Auth-Role %[var(txn.bearer),jwt_payload_query('$.role')]
"""

    def start(self):
        self.token = token(SECRET.encode(), "haproxy")
        super().start()


class Bindgate(Peer):
    binary = "target/release/bindgate"
    audit = False
    state = None

    def start(self):
        home = self.folder / self.name
        home.mkdir()
        if self.state:
            shutil.copy(self.state, home / "state.redb")
        (home / "password").write_text("unused")
        audit = f'audit_file = "{home}/audit.jsonl"' if self.audit else ""
        (home / "bindgate.toml").write_text(f"""
[server]
listen = ["127.0.0.1:{self.port}"]
public_origin = "https://localhost"
workers = 1
[server.tls]
certificate_file = "{self.folder}/tls.crt"
private_key_file = "{self.folder}/tls.key"
[server.limits]
connections_per_address = 10000
[telemetry]
listen = "127.0.0.1:0"
log_level = "warn"
audit_requests = {str(self.audit).lower()}
audit_required = {str(self.audit).lower()}
{audit}
[directory]
kind = "ldap"
urls = ["ldaps://127.0.0.1:1"]
ca_file = "{self.folder}/tls.crt"
bind_dn = "cn=unused,dc=example"
bind_password_file = "{home}/password"
base_dn = "dc=example"
user_attribute = "uid"
subject_attribute = "uid"
group_base_dn = "dc=example"
[[directory.role]]
name = "contact_tracer"
group = "cn=contact_tracers,dc=example"
[token]
keys_dir = "{home}/keys"
[store]
kind = "embedded"
path = "{home}/state.redb"
[[upstream]]
name = "backend"
urls = ["http://127.0.0.1:{self.upstream}"]
[[route]]
path = "/**"
access = "authenticated"
upstream = "backend"
""")
        self.spawn(str(pathlib.Path(self.binary).resolve()), "serve", "--config", str(home / "bindgate.toml"))
        self.await_port()
        for file in (home / "keys").glob("*.jwk"):
            key = json.loads(file.read_text())
            if key.get("purpose") == "session":
                secret = base64.urlsafe_b64decode(key["k"] + "==")
                self.token = token(secret, key["kid"])


class BindgateAudit(Bindgate):
    audit = True


class BindgateFull(Bindgate):
    """With a store that others filled."""


PEERS = {
    "nginx-noauth": Nginx,
    "haproxy-noauth": Haproxy,
    "haproxy-jwt": HaproxyJwt,
    "bindgate": Bindgate,
    "bindgate-audit": BindgateAudit,
    "bindgate-full": BindgateFull,
}
LOADS = {
    "1k-c64": ("wrk", 64, "/1k"),
    "1k-c1": ("wrk", 1, "/1k"),
    "100k-c64": ("wrk", 64, "/100k"),
    "h2": ("h2load", 8, "/1k"),
}


def headers_of(peer):
    return {
        "Authorization": f"Bearer {peer.token}",
        "Cookie": f"{peer.context}={CONTEXT}",
        "X-Auth-User": "mallory",
        "Host": "localhost",
    }


def check(peer):
    """A server that lets the wrong ones in is not doing the work that is compared."""
    def ask(headers):
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", peer.port, context=context, timeout=5)
        connection.request("GET", "/echo", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    status, body = ask(headers_of(peer))
    assert status == 200, f"{peer.name}: {status} {body}"
    if "noauth" in peer.name:
        return
    assert "carol" in body and "mallory" not in body, f"{peer.name}: {body}"
    without = headers_of(peer)
    del without["Authorization"]
    assert ask(without)[0] == 401, peer.name
    other = headers_of(peer) | {"Cookie": f"{peer.context}=other"}
    assert ask(other)[0] == 401, peer.name


def load(peer, kind, connections, path, seconds):
    headers = [part for name, value in headers_of(peer).items() if name != "Host"
               for part in ("-H", f"{name}: {value}")]
    url = f"https://localhost:{peer.port}{path}"
    if kind == "wrk":
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *headers, url]
    else:
        command = ["h2load", "-t1", f"-c{connections}", "-m16", f"-D{seconds}", *headers, url]
    before = peer.cpu_seconds()
    output = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True).stdout
    spent = peer.cpu_seconds() - before
    if kind == "wrk":
        requests = int(re.search(r"(\d+) requests in", output).group(1))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        assert not bad, f"{peer.name}: {output}"
    else:
        requests = int(re.search(r"status codes: (\d+) 2xx", output).group(1))
    return spent / requests * 1e6


def resident(peer):
    """MiB of the whole process group."""
    total = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[2]) == peer.process.pid:
                text = (stat.parent / "smaps_rollup").read_text()
                total += int(re.search(r"Pss:\s+(\d+)", text).group(1))
        except (OSError, AttributeError):
            continue
    return total / 1024


def memory(peer, connections):
    """MiB of the whole process group before and with idle connections that had one request each."""
    before, held = resident(peer), []
    context = ssl._create_unverified_context()
    for _ in range(connections):
        connection = http.client.HTTPSConnection("127.0.0.1", peer.port, context=context, timeout=30)
        connection.request("GET", "/1k", headers=headers_of(peer))
        connection.getresponse().read()
        held.append(connection)
    after = resident(peer)
    for connection in held:
        connection.close()
    return before, after, (after - before) * 1024 / connections


def upstream(folder, port):
    (folder / "1k").write_bytes(b"x" * 1024)
    (folder / "100k").write_bytes(b"x" * 102400)
    config = folder / "upstream.conf"
    config.write_text(f"""
worker_processes 1; daemon off; pid {folder}/upstream.pid; error_log stderr;
events {{ worker_connections 8192; }}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; sendfile on;
 fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
 keepalive_requests 1000000000; keepalive_timeout 600s;
 server {{ listen 127.0.0.1:{port} backlog=4096; root {folder};
  location /echo {{ return 200 "$http_x_auth_user $http_x_auth_role"; }} }} }}
""")
    return subprocess.Popen(["taskset", "-c", LOAD_CORE, "nginx", "-c", str(config), "-p", str(folder)],
                            stderr=open(folder / "upstream.log", "w"), start_new_session=True)


def certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "tls.key",
                    "-out", folder / "tls.crt"], check=True, capture_output=True)
    os.chmod(folder / "tls.key", 0o600)
    (folder / "both.pem").write_text((folder / "tls.crt").read_text() + (folder / "tls.key").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--peers", nargs="*", default=None)
    parser.add_argument("--state", help="a store for bindgate-full, which is compared with bindgate alone then")
    parser.add_argument("--loads", nargs="*", default=list(LOADS))
    parser.add_argument("--memory", type=int, default=0, metavar="CONNECTIONS",
                        help="measure memory with that many idle connections instead")
    parser.add_argument("--bindgate", default=Bindgate.binary)
    arguments = parser.parse_args()
    Bindgate.binary, BindgateFull.state = arguments.bindgate, arguments.state
    if arguments.peers is None:
        usual = [name for name in PEERS if name != "bindgate-full"]
        arguments.peers = ["bindgate", "bindgate-full"] if arguments.state else usual
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bindgate-bench-"))
    os.chmod(folder, 0o755)
    certificate(folder)
    port = free_port()
    backend = upstream(folder, port)
    peers = [PEERS[name](name, folder, port) for name in arguments.peers]
    results = {}
    try:
        for peer in peers:
            peer.start()
            check(peer)
            if arguments.state:
                print(f"{peer.name}: started in {peer.started_in:.2f} s, {resident(peer):.0f} MiB")
        if arguments.memory:
            print("| server | MiB idle | MiB with connections | KiB a connection |\n|---|--:|--:|--:|")
            for peer in peers:
                before, after, each = memory(peer, arguments.memory)
                print(f"| {peer.name} | {before:.1f} | {after:.1f} | {each:.1f} |")
            return
        for name in arguments.loads:
            for _ in range(arguments.rounds):
                for peer in peers:
                    load(peer, *LOADS[name], 1)
                    figure = load(peer, *LOADS[name], arguments.seconds)
                    results.setdefault((name, peer.name), []).append(figure)
    finally:
        for peer in peers:
            peer.stop()
        os.killpg(backend.pid, signal.SIGTERM)
        backend.wait()
        shutil.rmtree(folder)
    report(arguments, results)


def report(arguments, results):
    reference = "haproxy-jwt" if "haproxy-jwt" in arguments.peers else arguments.peers[0]
    print("CPU microseconds a request (median), and the median ratio within a round to", reference)
    print("| server |", " | ".join(arguments.loads), "|")
    print("|---|", "--:|" * len(arguments.loads))
    for peer in arguments.peers:
        cells = []
        for name in arguments.loads:
            mine, base = results[name, peer], results[name, reference]
            ratio = statistics.median(a / b for a, b in zip(mine, base))
            cells.append(f"{statistics.median(mine):.1f} ({ratio:.2f})")
        print(f"| {peer} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
