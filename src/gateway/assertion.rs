//! Assertions on their way to an upstream: which one a request carries, and where.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap};
use http::{HeaderName, HeaderValue};

use crate::config::Deliver;
use crate::gateway::Gateway;
use crate::gateway::gate::Named;
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::session::VerifiedIdentity;
use crate::token::{Assertion, AssertionError, AssertionIssuer, Remembered};

/// How one upstream gets its assertions.
#[derive(Clone)]
pub(crate) struct Assertions {
    /// Which upstream of the configuration it is.
    pub upstream: usize,
    /// Who signs them.
    pub issuer: Arc<AssertionIssuer>,
    /// Where they go.
    pub deliver: Deliver,
}

/// The assertions of one verified pair, as header values: a worker's own copies, so
/// that an ordinary request shares nothing with other workers.
#[derive(Default)]
pub(crate) struct LocalAssertions(RefCell<Vec<(usize, Arc<Assertion>, HeaderValue)>>);

impl Gateway {
    /// What a request of this identity carries to an upstream. Signing is the control
    /// runtime's work; a request waits for it only when the session has none that
    /// would serve.
    pub(crate) async fn assertion(
        &self,
        assertions: &Assertions,
        named: &Named,
    ) -> Result<HeaderValue, Refusal> {
        let Named { identity, known } = named;
        let holds = |assertion: &Assertion| identity.is_stated_by(assertion);
        if let Some(value) = known.assertions.fresh(assertions.upstream, holds) {
            return Ok(value);
        }
        let assertion = match identity.assertion(&assertions.issuer) {
            Remembered::Fresh(assertion) => assertion,
            Remembered::Ageing { assertion, renew } => {
                if renew {
                    self.services().control.spawn(sign(identity.clone(), assertions));
                }
                return assertions.deliver.value(assertion.text());
            }
            Remembered::None => {
                let signed = self.services().control.spawn(sign(identity.clone(), assertions));
                signed.await.map_err(|_| Refusal::Internal)??
            }
        };
        let value = assertions.deliver.value(assertion.text())?;
        known.assertions.put(assertions.upstream, assertion, value.clone());
        Ok(value)
    }
}

fn sign(
    identity: VerifiedIdentity,
    assertions: &Assertions,
) -> impl Future<Output = Result<Arc<Assertion>, Refusal>> + use<> {
    let issuer = Arc::clone(&assertions.issuer);
    async move {
        identity.renew_assertion(&issuer).await.map_err(|error| {
            tracing::error!(session = %identity.session(), %error, "no assertion");
            match error {
                AssertionError::AttributesUnknown => Refusal::StoreUnavailable,
                AssertionError::Signing(_) => Refusal::Internal,
            }
        })
    }
}

impl LocalAssertions {
    fn fresh(&self, upstream: usize, holds: impl Fn(&Assertion) -> bool) -> Option<HeaderValue> {
        let all = self.0.borrow();
        let (_, assertion, value) = all.iter().find(|(known, ..)| *known == upstream)?;
        holds(assertion).then(|| value.clone())
    }

    fn put(&self, upstream: usize, assertion: Arc<Assertion>, value: HeaderValue) {
        let mut all = self.0.borrow_mut();
        all.retain(|(known, ..)| *known != upstream);
        all.push((upstream, assertion, value));
    }
}

impl Deliver {
    /// A trailer of this name could be read as one.
    pub(super) fn trailer(&self) -> HeaderName {
        self.header().unwrap_or(COOKIE)
    }

    fn value(&self, assertion: &Secret<String>) -> Result<HeaderValue, Refusal> {
        let text = assertion.expose();
        let text = match self {
            Self::Header(_) => text.clone(),
            Self::Cookie(name) => format!("{name}={text}"),
            Self::Bearer => format!("Bearer {text}"),
        };
        let value = HeaderValue::from_maybe_shared(Bytes::from(text));
        let mut value = value.map_err(|_| Refusal::Internal)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Puts it among headers that hold nothing of the kind any more. As a cookie it
    /// comes first: whatever the client sent cannot hide it from a lax parser.
    pub(super) fn state(&self, value: &HeaderValue, headers: &mut HeaderMap) {
        let Some(name) = self.header() else {
            let mut all = value.as_bytes().to_vec();
            for other in headers.get_all(COOKIE) {
                all.extend_from_slice(b"; ");
                all.extend_from_slice(other.as_bytes());
            }
            // Valid values joined are one.
            let joined = HeaderValue::from_maybe_shared(Bytes::from(all));
            let mut joined = joined.unwrap_or_else(|_| value.clone());
            joined.set_sensitive(true);
            headers.insert(COOKIE, joined);
            return;
        };
        headers.insert(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, COOKIE, HeaderMap};

    use crate::config::Deliver;
    use crate::secret::Secret;

    #[test]
    fn an_assertion_stands_once_where_the_upstream_looks_for_it() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "a=\"x; b=2".parse().unwrap());
        headers.insert(AUTHORIZATION, "Basic x".parse().unwrap());
        for (deliver, name, expected) in [
            (Deliver::Cookie("t".to_owned()), "cookie", "t=j.w.t; a=\"x; b=2"),
            (Deliver::Bearer, "authorization", "Bearer j.w.t"),
            (Deliver::Header("x-assertion".parse().unwrap()), "x-assertion", "j.w.t"),
        ] {
            let value = deliver.value(&Secret::new("j.w.t".to_owned())).unwrap();
            assert!(value.is_sensitive());
            deliver.state(&value, &mut headers);
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [expected]);
        }
    }
}
