#!/usr/bin/env python3
"""Whether the time of a refused login tells which way it took.

An unknown user, a wrong password, a name of two entries and impossible credentials
are tried in turn, in random order, over one kept connection, against a real slapd.
Told are the quantiles of each, and for each pair two statistics of two samples: the
probability that one takes longer than the other (Mann-Whitney; 0.5 tells nothing)
with its z, and the largest distance of the two distributions (Kolmogorov-Smirnov)
beside the distance that chance alone exceeds once in a hundred times. Once with the
schedule, and once with one so fine that it hides nothing, to show what it hides.

Impossible credentials are known from what was typed alone, and are not on disk in the
audit log before they are answered; on a slow disk that shows, and tells of nobody.

Needs slapd, openssl and a build of the gateway:
    cargo build --release
    benches/even.py --samples 200
"""

import argparse
import http.client
import itertools
import json
import math
import pathlib
import random
import socket
import ssl
import statistics
import subprocess
import tempfile
import time

PASSWORD = "correct horse battery"
LDIF = """dn: dc=example,dc=org
objectClass: organization
objectClass: dcObject
o: example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=north,ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: north

dn: cn=service,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: service
userPassword: secret
"""
PERSON = """
dn: uid={uid},{unit}ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: {uid}
sn: x
cn: x
userPassword: {password}
"""
WAYS = {
    "unknown user": ("nobody", PASSWORD),
    "wrong password": ("alice", "wrong"),
    "two entries": ("twin", PASSWORD),
    "impossible": ("alice", ""),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port, process):
    for _ in range(400):
        try:
            return socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    raise SystemExit(f"{process.args[0]} did not start")


def slapd(folder, port):
    (folder / "db").mkdir()
    conf = folder / "slapd.conf"
    conf.write_text(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n"
        "include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\n"
        "moduleload back_mdb\ndatabase mdb\nsuffix \"dc=example,dc=org\"\n"
        f"directory {folder}/db\nindex objectClass,uid,member eq\n"
        "access to attrs=userPassword by anonymous auth\naccess to * by users read\n"
    )
    people = [("alice", ""), ("twin", ""), ("twin", "ou=north,")]
    ldif = LDIF + "".join(PERSON.format(uid=uid, unit=unit, password=PASSWORD) for uid, unit in people)
    subprocess.run(["slapadd", "-q", "-f", conf], input=ldif.encode(), check=True)
    command = ["slapd", "-d", "0", "-f", conf, "-h", f"ldap://127.0.0.1:{port}/"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await_port(port, process)
    return process


def gateway(binary, folder, ldap_port, step):
    https, telemetry = free_port(), free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, stderr=subprocess.DEVNULL,
    )
    (folder / "secret").write_text("secret")
    config = folder / "bindgate.toml"
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{https}"]
public_origin = "https://localhost"
[server.tls]
certificate_file = "tls.crt"
private_key_file = "tls.key"
[telemetry]
listen = "127.0.0.1:{telemetry}"
log_level = "error"
audit_file = "audit-{https}.jsonl"
[store]
kind = "memory"
[throttle]
login_per_user = "1000000 per 1m"
login_per_address = "1000000 per 1m"
accounts_per_address = "1000000 per 1m"
refusal_after = "{step}ms"
[directory]
kind = "ldap"
urls = ["ldap://127.0.0.1:{ldap_port}"]
allow_plaintext = true
bind_dn = "cn=service,dc=example,dc=org"
bind_password_file = "secret"
base_dn = "ou=people,dc=example,dc=org"
group_base_dn = "dc=example,dc=org"
[[directory.role]]
name = "user"
group = "cn=users,dc=example,dc=org"
[[upstream]]
name = "backend"
urls = ["http://127.0.0.1:9"]
[[route]]
path = "/**"
access = "authenticated"
upstream = "backend"
""")
    for name in ("tls.key", "secret", "bindgate.toml"):
        (folder / name).chmod(0o600)
    process = subprocess.Popen([binary, "serve", "--config", config], stdout=subprocess.DEVNULL)
    await_port(https, process)
    return process, https


def measure(port, folder, samples):
    trust = ssl.create_default_context(cafile=folder / "tls.crt")
    connection = http.client.HTTPSConnection("localhost", port, context=trust)
    order = [way for way in WAYS for _ in range(samples)]
    random.Random(20).shuffle(order)
    times = {way: [] for way in WAYS}
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    # The first ones connect to the directory.
    for number, way in enumerate(list(WAYS) * 3 + order):
        name, password = WAYS[way]
        body = json.dumps({"username": name, "password": password})
        before = time.perf_counter()
        connection.request("POST", "/auth/login", body, headers)
        answer = connection.getresponse()
        answer.read()
        took = (time.perf_counter() - before) * 1000
        if answer.status != 401:
            raise SystemExit(f"{way}: {answer.status}")
        if number >= len(WAYS) * 3:
            times[way].append(took)
    return times


def mann_whitney(a, b):
    """How often one of `a` is the longer, and how many deviations that is from one half."""
    ranked = sorted([(value, 0) for value in a] + [(value, 1) for value in b])
    rank_sum = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    u = rank_sum - len(a) * (len(a) + 1) / 2
    deviation = math.sqrt(len(a) * len(b) * (len(a) + len(b) + 1) / 12)
    return u / (len(a) * len(b)), (u - len(a) * len(b) / 2) / deviation


def kolmogorov_smirnov(a, b):
    values = sorted(a + b)
    below = lambda sample, value: sum(one <= value for one in sample) / len(sample)
    distance = max(abs(below(a, value) - below(b, value)) for value in values)
    return distance, 1.63 * math.sqrt((len(a) + len(b)) / (len(a) * len(b)))


def report(step, times):
    print(f"\nrefusal_after = {step} ms, {len(next(iter(times.values())))} of each way")
    print(f"{'way':<16} {'p5':>9} {'median':>9} {'p95':>9} {'max':>9}   ms")
    for way, took in times.items():
        cuts = statistics.quantiles(took, n=20)
        print(f"{way:<16} {cuts[0]:>9.3f} {cuts[9]:>9.3f} {cuts[18]:>9.3f} {max(took):>9.3f}")
    for a, b in itertools.combinations(times, 2):
        longer, z = mann_whitney(times[a], times[b])
        distance, chance = kolmogorov_smirnov(times[a], times[b])
        verdict = "told apart" if distance > chance else "not told apart"
        print(f"{a} / {b}: P(longer) {longer:.3f} (z {z:+.1f}), KS {distance:.3f} of {chance:.3f}: {verdict}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default="target/release/bindgate")
    arguments.add_argument("--samples", type=int, default=200)
    arguments.add_argument("--step", type=int, default=100, help="ms")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ldap_port = free_port()
        processes = [slapd(folder, ldap_port)]
        try:
            for step in (1, arguments.step):
                process, port = gateway(arguments.binary, folder, ldap_port, step)
                processes.append(process)
                report(step, measure(port, folder, arguments.samples))
        finally:
            for process in processes:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
