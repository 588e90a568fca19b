//! A change that reaches the directory and whose answer is lost.

use std::net::{Ipv4Addr, SocketAddr};

use bindgate::config::LdapTransport;

use super::form::{by_form, expect_login_page};
use super::{by_name, expect_outcomes, newcomer, records, started};
use crate::support::dirsrv::Dirsrv;
use crate::support::saboteur::{Fault, Point, Saboteur};
use crate::support::samba::{BASE, Samba};
use crate::support::slapd::PASSWORD;
use crate::support::world::{World, log_in, shared_slapd};

/// So long that no search is as long as the request to change a password to it.
const LONG: &str = "Seven quiet herons walked along the flooded meadow while an old ferry carried \
                    apples, lamps and forty letters to the island.";

#[tokio::test]
async fn a_change_that_is_not_answered_ends_the_sessions_and_is_recorded_as_unknown() {
    let (samba, dirsrv) = tokio::join!(started(Samba::start), started(Dirsrv::start));
    let slapd = shared_slapd();
    for name in ["stella", "clara"] {
        newcomer(&slapd, name, "");
    }
    for name in ["sam", "carol"] {
        samba.add_fine_grained_policy(&format!("changing_{name}"), name, 50);
    }
    // Where the password must be changed, Active Directory takes that from the service.
    let (own, service) = (Point::AfterChange, Point::AfterServiceChange);
    for (toml, name, point, fault) in [
        (slapd.toml(LdapTransport::Tls), "stella", own, Fault::Stall),
        (slapd.toml(LdapTransport::Tls), "clara", own, Fault::Cut),
        (dirsrv.toml(), "sam", own, Fault::Stall),
        (dirsrv.toml(), "carol", own, Fault::Cut),
        (samba.toml(), "sam", own, Fault::Stall),
        (samba.toml(), "carol", own, Fault::Cut),
        (samba.toml(), "both", service, Fault::Stall),
        (samba.toml(), "prim", service, Fault::Cut),
    ] {
        let (relay, directory) = sabotaged(&toml).await;
        let world = World::with(|setup| {
            setup.directory(&directory);
        })
        .await;
        // It leaves a connection for the bind, so that the second thing said there is the change.
        let here = world.sign_in(name).await;
        if point == service {
            samba.ldapmodify(&format!(
                "dn: CN={name},OU=people,{BASE}\nchangetype: modify\nreplace: pwdLastSet\n\
                 pwdLastSet: 0\n"
            ));
        }
        relay.strikes(point, fault);
        let client = world.client();
        if fault == Fault::Stall {
            let answer = by_name(&client, name, PASSWORD, LONG).await;
            answer.expect(503, "DirectoryUnavailable");
        } else {
            // Nobody knows with which password to try again.
            let page = by_form(&client, name, [PASSWORD, LONG, LONG], "/").await;
            expect_login_page(&page, 503, name);
        }
        relay.stops();
        expect_outcomes(&world, &["unknown"]).await;
        assert_eq!(records(&world, "password_change")[0]["status"], 503);
        here.get("/app/echo").send().await.expect(401, "SessionRevoked");
        let ended = records(&world, "revocation");
        assert_eq!(ended.len(), 1, "{name}: {fault:?}");
        assert_eq!(ended[0]["outcome"], "password_changed");
        if fault == Fault::Stall {
            // The server did what it was asked to.
            log_in(&world.client(), name, LONG).await.expect_status(200);
        }
    }
}

/// A relay before the server that a section names, and the section that names the relay.
async fn sabotaged(toml: &str) -> (Saboteur, String) {
    let (_, rest) = toml.split_once("ldaps://").expect("a server");
    let own = rest.split('"').next().expect("its end");
    let with_usual_port = || own.parse().map(|host: Ipv4Addr| SocketAddr::from((host, 636)));
    let server = own.parse().or_else(|_| with_usual_port()).expect("an address");
    let relay = Saboteur::before(server).await;
    let toml = toml.replace(&format!("ldaps://{own}"), &format!("ldaps://{}", relay.address));
    let (before, rest) = toml.split_once("\ntimeout = ").expect("a time");
    let (_, after) = rest.split_once('\n').expect("its end");
    (relay, format!("{before}\ntimeout = \"4s\"\n{after}"))
}
