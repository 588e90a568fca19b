//! A backend that does not rely on the proxy: it checks every assertion against the
//! keys it fetched, and fetches them again only after a while, whatever it is shown.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::plain_get;
use super::upstream::lock;

/// A running backend; it ends with the value.
pub(crate) struct Verifier {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    audience: String,
    /// How long fetched keys are used.
    remembers: Duration,
    jwks: OnceLock<SocketAddr>,
    keys: tokio::sync::Mutex<Option<(Instant, JwkSet)>>,
    /// Accepted requests by `kid`.
    accepted: Mutex<BTreeMap<String, usize>>,
    refused: Mutex<Vec<String>>,
}

impl Verifier {
    pub(crate) async fn start(audience: &str, remembers: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            audience: audience.to_owned(),
            remembers,
            jwks: OnceLock::new(),
            keys: tokio::sync::Mutex::default(),
            accepted: Mutex::default(),
            refused: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Where it fetches keys.
    pub(crate) fn trusts(&self, jwks: SocketAddr) {
        self.shared.jwks.set(jwks).expect("said once");
    }

    /// How many requests with a key of this name it accepted.
    pub(crate) fn accepted(&self, kid: &str) -> usize {
        lock(&self.shared.accepted).get(kid).copied().unwrap_or_default()
    }

    /// Why it refused what it refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        lock(&self.shared.refused).clone()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(shared.answer(&request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::new(Bytes::new()));
        match self.judge(request).await {
            Ok(kid) => *lock(&self.accepted).entry(kid).or_default() += 1,
            Err(why) => {
                lock(&self.refused).push(why);
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
            }
        }
        answer
    }

    async fn judge(&self, request: &Request<Incoming>) -> Result<String, String> {
        let value = request.headers().get("authorization").ok_or("no assertion")?;
        let value = value.to_str().map_err(|error| error.to_string())?;
        let token = value.strip_prefix("Bearer ").ok_or("no bearer")?;
        let header = decode_header(token).map_err(|error| error.to_string())?;
        let kid = header.kid.ok_or("no kid")?;
        let jwk = self.key(&kid).await?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[&self.audience]);
        rules.leeway = 0;
        decode::<Value>(token, &key, &rules).map_err(|error| format!("{kid}: {error}"))?;
        Ok(kid)
    }

    async fn key(&self, kid: &str) -> Result<Jwk, String> {
        let mut keys = self.keys.lock().await;
        if keys.as_ref().is_none_or(|(since, _)| since.elapsed() > self.remembers) {
            let address = *self.jwks.get().ok_or("no key set")?;
            let answer = plain_get(address, "/.well-known/jwks.json").await;
            let answer = answer.map_err(|error| format!("no key set: {error}"))?;
            let fetched = serde_json::from_str(answer.text()).map_err(|error| error.to_string())?;
            *keys = Some((Instant::now(), fetched));
        }
        let found = keys.as_ref().and_then(|(_, keys)| keys.find(kid).cloned());
        found.ok_or_else(|| format!("{kid} is not in the key set"))
    }
}
