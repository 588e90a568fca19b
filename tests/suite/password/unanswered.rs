//! A change that reaches the directory and whose answer is lost.

use std::net::{Ipv4Addr, SocketAddr};

use bindgate::config::LdapTransport;

use super::form::{by_form, expect_login_page};
use super::{NEW, by_name, expect_outcomes, newcomer, records, started};
use crate::support::dirsrv::Dirsrv;
use crate::support::saboteur::{Fault, Point, Saboteur};
use crate::support::samba::Samba;
use crate::support::slapd::PASSWORD;
use crate::support::world::{World, log_in, shared_slapd};

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
    for (toml, name, fault) in [
        (slapd.toml(LdapTransport::Tls), "stella", Fault::Stall),
        (slapd.toml(LdapTransport::Tls), "clara", Fault::Cut),
        (dirsrv.toml(), "sam", Fault::Stall),
        (dirsrv.toml(), "carol", Fault::Cut),
        (samba.toml(), "sam", Fault::Stall),
        (samba.toml(), "carol", Fault::Cut),
    ] {
        let (relay, directory) = sabotaged(&toml).await;
        let world = World::with(|setup| {
            setup.directory(&directory);
        })
        .await;
        let here = world.sign_in(name).await;
        // It leaves a connection for the bind, so that the second thing said there is the change.
        relay.strikes(Point::AfterChange, fault);
        let client = world.client();
        if fault == Fault::Stall {
            let answer = by_name(&client, name, PASSWORD, NEW).await;
            answer.expect(503, "DirectoryUnavailable");
        } else {
            // Nobody knows with which password to try again.
            let page = by_form(&client, name, [PASSWORD, NEW, NEW], "/").await;
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
            log_in(&world.client(), name, NEW).await.expect_status(200);
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
