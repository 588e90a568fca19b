//! What is between us and the directory breaks, in every way, at every step of a login:
//! the right answer in time, nothing left open, and the next login works.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bindgate::config::LdapTransport;

use crate::support::saboteur::{FAULTS, Fault, POINTS, Point, Saboteur};
use crate::support::slapd::{PASSWORD, Slapd};
use crate::support::world::{ADMIN, TRACER, World, directory_through, log_in};
use crate::support::{eventually, eventually_async, within};

/// Within which every login must be answered; `directory.timeout` is one second.
const DEADLINE: Duration = Duration::from_secs(5);

/// A world behind a relay that is well, with both kinds of connection open.
struct Stage {
    world: World,
    relay: Saboteur,
    slapd: Slapd,
}

impl Stage {
    async fn new(transport: LdapTransport, searches_ahead: u32) -> Self {
        let slapd = Slapd::start_telling();
        let server = SocketAddr::from(([127, 0, 0, 1], slapd.port(transport)));
        let relay = Saboteur::before(server).await;
        let directory = directory_through(&slapd, transport, relay.address);
        let limits = format!("timeout = \"1s\"\nsearches_ahead = {searches_ahead}");
        let directory = directory.replace("timeout = \"5s\"", &limits);
        let world = World::with(|setup| {
            setup.directory(&directory);
            // A password that got no answer stays counted: the directory may have done so.
            setup.set("throttle", "login_per_user", "\"100 per 15m\"");
        })
        .await;
        world.gateway.readiness(200).await;
        Self { world, relay, slapd }
    }

    /// How often the server was asked for this person's password.
    fn binds(&self) -> usize {
        let name = format!("uid={TRACER},ou=people,dc=example,dc=org");
        self.slapd.binds().iter().filter(|bound| **bound == name).count()
    }

    /// Open connections, as the gateway counts them and as they are.
    async fn settles(&self, what: &str) {
        eventually_async(&format!("nothing is left open after {what}"), async || {
            let metrics = self.world.gateway.metrics().await;
            let name = "bindgate_directory_connections_open";
            let service = metrics.sum(name, &[("purpose", "service")]);
            let bind = metrics.sum(name, &[("purpose", "bind")]);
            let open = self.relay.open();
            ((service, bind) == (1.0, 1.0) && open == 2).then_some(())
        })
        .await;
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.world.gateway.pid());
        fs::read_dir(folder).expect("/proc").count()
    }

    /// One step, one fault.
    async fn suffers(&self, point: Point, fault: Fault) {
        let what = format!("{fault:?} at {point:?}");
        let before = self.binds();
        if point == Point::AfterSearch {
            // Without one at hand, the bind needs a new connection.
            self.loses_its_bind_connection().await;
        }
        self.relay.strikes(point, fault);
        let client = self.world.client();
        let answer = within(DEADLINE, &what, log_in(&client, TRACER, PASSWORD)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "DirectoryUnavailable"),
            "{what}"
        );
        assert!(answer.header("retry-after").is_some(), "{what}");
        assert!(client.jar.header().is_none(), "{what}");
        let tried = match point {
            Point::AfterBind | Point::AfterAnswer => 1,
            // What is cut short only on the way back has reached the server.
            Point::BeforeBind if matches!(fault, Fault::Truncate | Fault::Corrupt) => 1,
            _ => 0,
        };
        assert_eq!(self.binds() - before, tried, "{what}: how often the password was tried");
        self.relay.stops();
        let answer = within(DEADLINE, &what, log_in(&client, TRACER, PASSWORD)).await;
        assert_eq!(answer.status, 200, "the next login after {what}: {answer:?}");
        assert_eq!(self.binds() - before, tried + 1, "{what}");
        self.settles(&what).await;
    }

    async fn loses_its_bind_connection(&self) {
        // Not a plain answer: its connection is not kept.
        let answer = log_in(&self.world.client(), "locked", PASSWORD).await;
        answer.expect(401, "InvalidCredentials");
        eventually("it is closed", || (self.relay.open() == 1).then_some(())).await;
    }
}

async fn suffers_everything(transport: LdapTransport, points: &[Point], searches_ahead: u32) {
    let stage = Stage::new(transport, searches_ahead).await;
    let signed_in = stage.world.sign_in(ADMIN).await;
    stage.world.sign_in(TRACER).await;
    stage.settles("the first login").await;
    let descriptors = stage.descriptors();
    for point in points {
        for fault in FAULTS {
            stage.suffers(*point, fault).await;
        }
        signed_in.get("/admin/echo").send().await.expect_status(200);
    }
    eventually("no descriptor is left", || (stage.descriptors() <= descriptors).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_at_whatever_step_over_ldaps_the_next_login_works() {
    Box::pin(suffers_everything(LdapTransport::Tls, &POINTS, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_at_whatever_step_over_start_tls_the_next_login_works() {
    Box::pin(suffers_everything(LdapTransport::StartTls, &POINTS, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_while_searches_were_sent_ahead_the_next_login_works() {
    // After the bind's answer nothing need be asked any more.
    let (_, points) = POINTS.split_last().expect("several");
    Box::pin(suffers_everything(LdapTransport::Tls, points, 100)).await;
}
