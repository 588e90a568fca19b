//! The decision: may this identity send this request on this route? Nothing else
//! in the program can make a [`Permit`], and without one nothing is forwarded.

use std::rc::Rc;

use http::Method;

use crate::gateway::credential::KnownPair;
use crate::policy::Route;
use crate::refusal::Refusal;
use crate::session::{Carrier, VerifiedIdentity};
use crate::wire::csrf::Proof;

/// The right to send one request to one route's upstream. Its field is private,
/// and it is neither `Clone` nor `Copy`: it is spent by the request it permits.
pub(crate) struct Permit(Grounds);

/// What a permit rests on.
pub(crate) enum Grounds {
    /// The route is explicitly public, and nobody is named.
    PublicRoute,
    /// A verified identity whose role the route allows.
    Session(Named),
}

/// A verified identity on its way to the upstream.
pub(crate) struct Named {
    /// Who is calling.
    pub identity: VerifiedIdentity,
    /// The header values that say so.
    pub known: Rc<KnownPair>,
}

/// An identity as the gate is asked about it.
pub(crate) struct Caller {
    /// Who is calling.
    pub named: Named,
    /// How the token came; a cookie comes along with forged requests too.
    pub carrier: Carrier,
}

impl Permit {
    /// Spends the permit.
    pub(crate) fn spend(self) -> Grounds {
        self.0
    }

    /// The identity it rests on.
    pub(crate) fn identity(&self) -> Option<&VerifiedIdentity> {
        self.named().map(|named| &named.identity)
    }

    /// The same with what is known of it.
    pub(crate) const fn named(&self) -> Option<&Named> {
        match &self.0 {
            Grounds::PublicRoute => None,
            Grounds::Session(named) => Some(named),
        }
    }
}

/// Whether a request changes state or opens a WebSocket, so that a cookie alone
/// does not prove that our own page made it.
pub(super) fn needs_proof(method: &Method, is_websocket: bool) -> bool {
    is_websocket || !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Judges one request. `proof` is `None` where none is needed.
///
/// # Errors
/// The refusal: `Unauthenticated`, `Forbidden` or `CsrfRejected`.
pub(super) fn judge(
    route: &Route,
    caller: Option<Caller>,
    proof: Option<Proof>,
) -> Result<Permit, Refusal> {
    let unproved =
        |carrier| matches!(carrier, Carrier::Cookie) && !matches!(proof, None | Some(Proof::Given));
    match caller {
        None if route.is_public() => Ok(Permit(Grounds::PublicRoute)),
        None => Err(Refusal::Unauthenticated),
        Some(caller) if route.is_public() => {
            if unproved(caller.carrier) {
                Ok(Permit(Grounds::PublicRoute))
            } else {
                Ok(Permit(Grounds::Session(caller.named)))
            }
        }
        Some(caller) if unproved(caller.carrier) => Err(Refusal::CsrfRejected),
        Some(caller) if !route.allows(caller.named.identity.role()) => Err(Refusal::Forbidden),
        Some(caller) => Ok(Permit(Grounds::Session(caller.named))),
    }
}
