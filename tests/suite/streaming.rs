//! Bytes of any number and kind stream through both ways, as they come, in constant
//! memory, and end when their session ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{BoxError, Client};
use crate::support::raw::Raw;
use crate::support::upstream::Script;
use crate::support::world::{ADMIN, TRACER, World};
use crate::support::{eventually, websocket, within};

const GIB: u64 = 1 << 30;
/// An open stream of an ended session must be gone after this (contract: 1 s; a busy machine).
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const OWN: &[(&str, &str)] = &[("origin", "https://gateway.test")];

/// A body of this many equal bytes that exists only in pieces.
struct Pieces {
    left: u64,
    piece: Bytes,
}

impl Pieces {
    fn of(bytes: u64) -> Self {
        Self { left: bytes, piece: Bytes::from(vec![0xa5; 128 * 1024]) }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let count = self.left.min(self.piece.len() as u64);
        self.left -= count;
        let piece = self.piece.slice(..usize::try_from(count).unwrap_or(usize::MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[tokio::test]
async fn a_websocket_echoes() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let mut socket = websocket::open(&alice, "/app/ws", OWN).await.expect("a WebSocket");
    let seen = world.upstream.last();
    assert_eq!(seen.header("x-auth-user"), Some(ADMIN));
    assert!(seen.all("cookie").is_empty());
    for size in [0, 1, 125, 126, 65_536, 1_000_000] {
        let message = Message::binary(vec![7_u8; size]);
        socket.send(message.clone()).await.expect("sent");
        assert_eq!(socket.next().await.expect("an echo").expect("a message"), message);
    }
    socket.send(Message::text("grüße")).await.expect("sent");
    assert_eq!(socket.next().await.expect("an echo").expect("text"), Message::text("grüße"));
    let open = world.gateway.metrics().await.sum("bindgate_websockets_open", &[]);
    assert!((open - 1.0).abs() < 0.5, "{open}");
    socket.close(None).await.expect("closed");
    eventually("the upstream's side closes", || {
        (world.upstream.open_websockets() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn server_sent_events_arrive_as_they_are_sent() {
    let world = World::start().await;
    for client in [world.sign_in(ADMIN).await, world.sign_in(TRACER).await.over_http2()] {
        let events = world.upstream.steps("/app/events", "text/event-stream");
        let response = client.get("/app/events").open().await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        for count in 0..5 {
            let event = format!("data: {count}\n\n");
            events.send(event.clone().into_bytes()).expect("the stream is open");
            let frame = within(Duration::from_secs(10), "an event", body.frame()).await;
            let data = frame.expect("a frame").expect("a body").into_data().expect("data");
            assert_eq!(data, event, "it arrives before the next one is sent");
        }
        drop(events);
        // HTTP/2 may end a stream with an empty frame.
        let rest = body.collect().await.expect("an orderly end").to_bytes();
        assert_eq!(rest, "", "nothing after the last event");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_goes_up_and_comes_down_in_constant_memory() {
    let world = World::with(|setup| {
        setup.set("server.limits", "body_bytes", "\"2GiB\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    // Once small, so that what is set up only once is there before the measure.
    let small = alice.post("/app/echo").own_page().body(Pieces::of(4 << 20).boxed_unsync());
    small.send().await.expect_status(200);
    let before = world.gateway.memory_kib("VmHWM");

    for client in [alice.clone(), alice.over_http2()] {
        let call = client.post("/app/echo").own_page().body(Pieces::of(GIB).boxed_unsync());
        let call = call.patiently(Duration::from_mins(5));
        let answer = Box::pin(within(Duration::from_mins(5), "upload", call.send())).await;
        answer.expect_status(200);
        assert_eq!(answer.json()["body_bytes"], GIB);

        let response = client.get(&format!("/app/big?bytes={GIB}")).open().await;
        assert_eq!(response.headers()["content-length"], GIB.to_string());
        let mut body = response.into_body();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.expect("the body goes on").into_data() {
                received += data.len() as u64;
            }
        }
        assert_eq!(received, GIB);
    }
    let grown = world.gateway.memory_kib("VmHWM") - before;
    assert!(grown < 32 * 1024, "grew by {grown} KiB over four transfers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_not_sent_to() {
    let world = World::with(|setup| {
        setup.set("server.limits", "body_bytes", "\"2GiB\"");
        setup.set("server.limits", "body_idle_timeout", "\"60s\"");
    })
    .await;
    let alice = world.sign_in(ADMIN).await;
    alice.get("/app/echo").send().await.expect_status(200);
    let before = world.gateway.memory_kib("VmHWM");
    // Down: the client asks for much and reads nothing; up: the upstream reads nothing.
    let response = alice.get(&format!("/app/big?bytes={GIB}")).open().await;
    let (go, watching) = watch::channel(false);
    world.upstream.on("/app/reluctant", Script::Reluctant(watching));
    let uploading = alice.clone();
    let upload = tokio::spawn(async move {
        let body = Pieces::of(64 << 20).boxed_unsync();
        let call = uploading.post("/app/reluctant").own_page().body(body);
        call.patiently(Duration::from_mins(5)).send().await
    });
    world.upstream.arrived("/app/reluctant").await;
    // Whatever is going to be buffered is buffered while other requests pass.
    for _ in 0..50 {
        alice.get("/app/echo").send().await.expect_status(200);
    }
    let grown = world.gateway.memory_kib("VmHWM") - before;
    assert!(grown < 32 * 1024, "buffered {grown} KiB");
    drop(response);
    go.send_replace(true);
    let answer = within(Duration::from_mins(2), "the upload", upload).await.expect("no panic");
    answer.expect_status(200);
    assert_eq!(answer.json()["body_bytes"], 64 << 20);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for client in [alice.clone(), alice.over_http2()] {
        let answer = client.get("/app/trailers").header("te", "trailers").send().await;
        answer.expect_status(200);
        assert_eq!(answer.text(), "body");
        let trailers = answer.trailers.as_ref().expect("trailers");
        assert_eq!(trailers["x-sum"], "42", "{:?}", answer.version);
        assert_eq!(world.upstream.last().header("te"), Some("trailers"));
    }
}

#[tokio::test]
async fn chunks_and_lengths_are_whole() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    for client in [alice.clone(), alice.over_http2()] {
        assert_eq!(client.get("/app/chunked").send().await.text(), "first second");
        let head = client.call("HEAD", "/app/echo").send().await;
        head.expect_status(200);
        assert!(head.body.is_empty());
        let answer = client.get("/app/early").send().await;
        assert_eq!(answer.text(), "early");
    }
}

async fn logged_out_elsewhere(client: &Client) {
    client.copy().post("/auth/logout").own_page().send().await.expect_status(204);
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_open_streams() {
    let world = World::start().await;
    for http2 in [false, true] {
        let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
        let alice = if http2 { alice.over_http2() } else { alice };
        let events = world.upstream.steps("/app/events", "text/event-stream");
        let mut body = alice.get("/app/events").open().await.into_body();
        let others = world.upstream.steps("/app/others", "text/event-stream");
        let mut other_body = carol.get("/app/others").open().await.into_body();
        events.send(b"data: 1\n\n".to_vec()).expect("open");
        body.frame().await.expect("a frame").expect("a body");

        logged_out_elsewhere(&alice).await;
        let end = within(ENDS_WITHIN, "the stream ends", async {
            while let Some(Ok(_)) = body.frame().await {}
        });
        end.await;
        eventually("the upstream notices", || events.is_closed().then_some(())).await;
        others.send(b"data: 2\n\n".to_vec()).expect("others go on");
        other_body.frame().await.expect("a frame").expect("a body");
    }
}

#[tokio::test]
async fn the_end_of_a_session_closes_its_websockets() {
    let world = World::start().await;
    let (alice, carol) = (world.sign_in(ADMIN).await, world.sign_in(TRACER).await);
    let mut socket = websocket::open(&alice, "/app/ws", OWN).await.expect("a WebSocket");
    let mut other = websocket::open(&carol, "/app/ws", OWN).await.expect("a WebSocket");
    socket.send(Message::text("here")).await.expect("sent");
    socket.next().await.expect("an echo").expect("text");
    logged_out_elsewhere(&alice).await;
    within(ENDS_WITHIN, "the WebSocket closes", async {
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    eventually("the upstream's side closes", || {
        (world.upstream.open_websockets() == 1).then_some(())
    })
    .await;
    other.send(Message::text("still here")).await.expect("sent");
    other.next().await.expect("an echo").expect("text");
}

#[tokio::test]
async fn the_gateway_asks_for_the_body_itself_and_only_when_it_wants_it() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let head = |cookies: &str| {
        format!(
            "POST /app/echo HTTP/1.1\r\nHost: gateway.test\r\nCookie: {cookies}\r\n\
             Origin: https://gateway.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(&alice).await;
    let cookies = alice.jar.header().expect("cookies");
    raw.write(head(&cookies).as_bytes()).await.expect("written");
    assert_eq!(raw.answer().await.expect("an interim answer").status, 100);
    raw.write(b"hello").await.expect("written");
    assert_eq!(raw.answer().await.expect("the answer").status, 200);
    let seen = world.upstream.last();
    assert_eq!(seen.body, b"hello");
    assert!(seen.all("expect").is_empty(), "not forwarded");

    let mut refused = Raw::connect(&alice).await;
    refused.write(head("a=b").as_bytes()).await.expect("written");
    let answer = refused.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (401, "Unauthenticated"), "no 100 first");
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_no_request_with_a_short_body() {
    let world = World::start().await;
    let alice = world.sign_in(ADMIN).await;
    let mut raw = Raw::connect(&alice).await;
    let request = format!(
        "POST /app/echo HTTP/1.1\r\nHost: gateway.test\r\nCookie: {}\r\n\
         Origin: https://gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        alice.jar.header().expect("cookies")
    );
    raw.write(request.as_bytes()).await.expect("written");
    drop(raw);
    alice.get("/app/echo?after").send().await.expect_status(200);
    for seen in world.upstream.seen_at("/app/echo") {
        assert!(seen.method == "GET" || seen.body_sha256.is_empty(), "a whole request: {seen:?}");
    }
}
