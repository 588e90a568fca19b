"""Puts the people and groups of the tests into a Samba domain that does not run yet.

Usage: samba_fixtures.py SMB_CONF. Written straight into the database, so that states can be
set which an administrator could only wait for.
"""

import sys
import time

import ldb
from samba.auth import system_session
from samba.dcerpc import security
from samba.ndr import ndr_unpack
from samba.param import LoadParm
from samba.samdb import SamDB

PASSWORD = "correct horse battery"
SET_PASSWORD_TIME = ["local_oid:1.3.6.1.4.1.7165.4.3.20:0"]
DAY = 86400
NORMAL, DISABLED, NOT_REQUIRED, SMART_CARD = 0x200, 0x202, 0x220, 0x40200

parameters = LoadParm()
parameters.load(sys.argv[1])
samdb = SamDB(url=parameters.private_path("sam.ldb"), session_info=system_session(), lp=parameters)
domain = str(samdb.domain_dn())


def filetime(seconds):
    return str((int(seconds) + 11644473600) * 10_000_000)


def ticks_ago(days):
    return filetime(time.time() - days * DAY)


def modify(dn, controls=None, **changes):
    message = ldb.Message(ldb.Dn(samdb, dn))
    for name, value in changes.items():
        message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
    samdb.modify(message, controls or [])


def unit(name):
    samdb.add({"dn": f"OU={name},{domain}", "objectClass": "organizationalUnit"})


def escaped(name):
    return "".join("\\" + char if char in '",\\+<>;=#' else char for char in name)


def person(account, cn=None, control=NORMAL, password=PASSWORD, **more):
    dn = f"CN={escaped(cn or account)},OU=people,{domain}"
    entry = {
        "dn": dn,
        "objectClass": "user",
        "sAMAccountName": account,
        "userAccountControl": str(control),
        "clearTextPassword": password.encode("utf-16-le"),
    }
    entry.update(more)
    samdb.add(entry)
    return dn


def group(name, unit="groups", account=None, members=(), kind="-2147483646"):
    dn = f"CN={name},OU={unit},{domain}"
    entry = {"dn": dn, "objectClass": "group", "sAMAccountName": account or name, "groupType": kind}
    if members:
        entry["member"] = list(members)
    samdb.add(entry)
    return dn


def rid(dn):
    found = samdb.search(dn, ldb.SCOPE_BASE, attrs=["objectSid"])[0]["objectSid"][0]
    return str(ndr_unpack(security.dom_sid, found)).rsplit("-", 1)[1]


for name in ["people", "services", "groups", "contractors"]:
    unit(name)
modify(domain, lockoutThreshold="50", lockoutDuration=str(-3650 * DAY * 10_000_000))
modify(domain, minPwdLength="1", pwdProperties="0", maxPwdAge=str(-42 * DAY * 10_000_000))

person("bindgate", password="service secret")
people = {}
for name in ["sam", "carol", "both", "nina", "lola", "nora", "frank", "prim", "dist"]:
    people[name] = person(name)
people["alice"] = person("alice", userPrincipalName="alice.smith@example.org")
people["upnclash"] = person("upnclash", userPrincipalName="alice@other.example.org")
people["zoë"] = person("zoë")
people["obrien"] = person("obrien", cn="#O'Brien, Pat \"P+Q\" <a;b> \\=c")
people["star"] = person("st(r)", userPrincipalName="st*r(x)@example.org")
people["amb"] = person("amb")
people["mailed"] = person("mailed")

samdb.add(
    {
        "dn": f"CN=keyless,OU=people,{domain}",
        "objectClass": "user",
        "sAMAccountName": "keyless",
        "userAccountControl": str(NOT_REQUIRED),
    }
)
person("disabled", control=DISABLED)
person("notrequired", control=NOT_REQUIRED)
person("card", control=SMART_CARD)
person("workstation", userWorkstations="ELSEWHERE")
person("hours", logonHours=b"\x00" * 21)
person("accountexpired", accountExpires=ticks_ago(1))
people["reset"] = person("reset")
modify(people["reset"], SET_PASSWORD_TIME, pwdLastSet="0")
people["expired"] = person("expired")
modify(people["expired"], SET_PASSWORD_TIME, pwdLastSet=ticks_ago(43))
people["expiring"] = person("expiring")
modify(people["expiring"], SET_PASSWORD_TIME, pwdLastSet=ticks_ago(39.5))
modify(person("locked"), lockoutTime=filetime(time.time()))

group("super_admins", members=[people["sam"], people["both"]])
group("super_admins", unit="contractors", account="contractors", members=[people["frank"]])
north = group("region_north", members=[people["nina"]])
loop_a = group("loop_a", members=[people["lola"]])
loop_b = group("loop_b", members=[loop_a])
modify(loop_a, member=[people["lola"], loop_b])
group("admins", members=[people["alice"], loop_b])
# For mail alone: a group that gives no rights, whatever it is a member of.
mailing = group("mailing", members=[people["mailed"]], kind="2")
tracers = group(
    "contact_tracers",
    members=[people[name] for name in ["carol", "both", "zoë", "obrien", "prim", "expiring", "reset", "expired"]]
    + [north, mailing],
)
# The primary group names its members nowhere but in their own entries.
modify(people["prim"], primaryGroupID=rid(tracers))

# Two entries for one name, which the domain itself would not take: written below it.
partition = f"{parameters.private_path('sam.ldb.d')}/{domain.upper()}.ldb"
raw = ldb.Ldb(partition)
message = ldb.Message(ldb.Dn(raw, people["dist"]))
message["u"] = ldb.MessageElement(
    "amb@ad.example.test", ldb.FLAG_MOD_REPLACE, "userPrincipalName"
)
raw.modify(message)
