//! One LDAP connection's conversation: who is bound on it, and the answers to
//! what is asked (RFC 4511). Knows nothing of sockets and TLS.

use ldap3_proto::control::LdapControl;
use ldap3_proto::proto::{
    LdapBindCred, LdapBindRequest, LdapBindResponse, LdapExtendedRequest, LdapExtendedResponse,
    LdapOp, LdapResult, LdapSearchRequest, OID_WHOAMI,
};
use ldap3_proto::{LdapPartialAttribute, LdapResultCode, LdapSearchResultEntry, LdapSearchScope};
use subtle::ConstantTimeEq as _;

use super::dn::Dn;
use super::people::{SERVICE, SUFFIX};
use super::tree::{Entry, Tree};

/// The state of one connection.
pub(super) struct Conversation<'t> {
    tree: &'t Tree,
    bound: Option<&'t Entry>,
}

impl<'t> Conversation<'t> {
    /// A new connection: anonymous.
    pub(super) const fn new(tree: &'t Tree) -> Self {
        Self { tree, bound: None }
    }

    /// The answers to one request, in order; `None` when it is no request at all.
    pub(super) fn answer(&mut self, op: LdapOp, controls: &[LdapControl]) -> Option<Vec<LdapOp>> {
        if controls.iter().any(is_critical) {
            let refusal = result(LdapResultCode::UnavailableCriticalExtension, "unknown control");
            return Some(response_to(&op)?(refusal).into_iter().collect());
        }
        Some(match op {
            LdapOp::BindRequest(request) => {
                self.bound = None;
                let (code, message) = match self.bind(&request) {
                    Ok(bound) => {
                        self.bound = bound;
                        (LdapResultCode::Success, "")
                    }
                    Err(refusal) => refusal,
                };
                response_to(&LdapOp::BindRequest(request))?(result(code, message))
            }
            LdapOp::SearchRequest(request) => self.search(&request),
            LdapOp::ExtendedRequest(request) => vec![self.extended(&request)],
            LdapOp::AbandonRequest(_) => Vec::new(),
            other => response_to(&other)?(result(
                LdapResultCode::UnwillingToPerform,
                "this directory is read-only and offers bind, search and whoami",
            )),
        })
    }

    /// Who is bound after the request; `Ok(None)` is anonymous.
    fn bind(
        &self,
        request: &LdapBindRequest,
    ) -> Result<Option<&'t Entry>, (LdapResultCode, &'static str)> {
        if request.version != 3 {
            return Err((LdapResultCode::ProtocolError, "only LDAP version 3 is spoken here"));
        }
        let LdapBindCred::Simple(password) = &request.cred else {
            return Err((LdapResultCode::AuthMethodNotSupported, "only simple binds are offered"));
        };
        let Some(name) = Dn::parse(&request.dn) else {
            return Err((LdapResultCode::InvalidDNSyntax, "invalid DN"));
        };
        match (name == Dn::default(), password.is_empty()) {
            (true, true) => Ok(None),
            (false, true) => Err((
                LdapResultCode::UnwillingToPerform,
                "unauthenticated bind (DN with no password) disallowed",
            )),
            (_, false) => match self.tree.get(&name) {
                Some(entry) if proves(entry, password) => Ok(Some(entry)),
                // "No such entry" and "wrong password" read the same.
                Some(_) | None => Err((LdapResultCode::InvalidCredentials, "")),
            },
        }
    }

    fn search(&self, request: &LdapSearchRequest) -> Vec<LdapOp> {
        let done = |code, message| vec![LdapOp::SearchResultDone(result(code, message))];
        let Some(base) = Dn::parse(&request.base) else {
            return done(LdapResultCode::InvalidDNSyntax, "invalid DN");
        };
        if base == Dn::default() && request.scope == LdapSearchScope::Base {
            let mut answers = vec![LdapOp::SearchResultEntry(root_dse(&request.attrs))];
            answers.extend(done(LdapResultCode::Success, ""));
            return answers;
        }
        if self.bound.is_none() {
            return done(LdapResultCode::InsufficentAccessRights, "bind first");
        }
        let Some(_visible) = self.tree.get(&base).filter(|entry| self.may_read(entry)) else {
            return done(LdapResultCode::NoSuchObject, "");
        };
        // A size limit of 0 means none (RFC 4511 section 4.5.1.4).
        let limit = usize::try_from(request.sizelimit).ok().filter(|&limit| limit > 0);
        let found = self.tree.find(&base, &request.scope, &request.filter);
        let mut readable = found.filter(|entry| self.may_read(entry));
        let mut answers: Vec<LdapOp> = readable
            .by_ref()
            .take(limit.unwrap_or(usize::MAX))
            .map(|entry| entry.answer(&request.attrs, request.typesonly))
            .map(LdapOp::SearchResultEntry)
            .collect();
        let code = match readable.next() {
            Some(_) => LdapResultCode::SizeLimitExceeded,
            None => LdapResultCode::Success,
        };
        answers.extend(done(code, ""));
        answers
    }

    /// The service account reads everything, a person only the own entry.
    fn may_read(&self, entry: &Entry) -> bool {
        self.bound.is_some_and(|bound| bound.dn() == SERVICE || bound.key() == entry.key())
    }

    fn extended(&self, request: &LdapExtendedRequest) -> LdapOp {
        let (res, value) = if request.name == OID_WHOAMI {
            let identity = self.bound.map(|entry| format!("dn:{}", entry.dn()));
            (result(LdapResultCode::Success, ""), Some(identity.unwrap_or_default().into_bytes()))
        } else {
            (result(LdapResultCode::ProtocolError, "unknown extended operation"), None)
        };
        LdapOp::ExtendedResponse(LdapExtendedResponse { res, name: None, value })
    }
}

fn proves(entry: &Entry, password: &str) -> bool {
    entry.password().is_some_and(|it| it.expose().as_bytes().ct_eq(password.as_bytes()).into())
}

/// What a client asks to know where it is (RFC 4512 section 5.1).
fn root_dse(wanted: &[String]) -> LdapSearchResultEntry {
    let values = [
        ("objectClass", "top"),
        ("namingContexts", SUFFIX),
        ("supportedLDAPVersion", "3"),
        ("supportedExtension", OID_WHOAMI),
        ("vendorName", "bindgate demo"),
    ];
    // Operational attributes: `+` asks for them as much as their names do.
    let all = wanted.is_empty() || wanted.iter().any(|name| name == "*" || name == "+");
    let is_wanted = |name: &str| all || wanted.iter().any(|it| it.eq_ignore_ascii_case(name));
    LdapSearchResultEntry {
        dn: String::new(),
        attributes: values
            .into_iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|(name, value)| LdapPartialAttribute {
                atype: name.to_owned(),
                vals: vec![value.as_bytes().to_vec()],
            })
            .collect(),
    }
}

/// Whether the client insists on a control; none is built here.
const fn is_critical(control: &LdapControl) -> bool {
    match control {
        LdapControl::SyncRequest { criticality, .. }
        | LdapControl::ManageDsaIT { criticality }
        | LdapControl::PasswordPolicyRequest { criticality }
        | LdapControl::SearchOptions { criticality, .. }
        | LdapControl::ShowDeleted { criticality }
        | LdapControl::SdFlags { criticality, .. }
        | LdapControl::ExtendedDn { criticality, .. }
        | LdapControl::Unknown { criticality, .. } => *criticality,
        // The library drops the criticality of these; each may be ignored.
        LdapControl::SyncState { .. }
        | LdapControl::SyncDone { .. }
        | LdapControl::AdDirsync { .. }
        | LdapControl::SimplePagedResults { .. }
        | LdapControl::ServerSort { .. }
        | LdapControl::ServerSortResult { .. } => false,
    }
}

/// A result without matched name and referrals.
pub(super) fn result(code: LdapResultCode, message: &str) -> LdapResult {
    LdapResult { code, matcheddn: String::new(), message: message.to_owned(), referral: Vec::new() }
}

/// How the result of a request is sent: nothing for those that have no answer;
/// `None` for what is no request.
fn response_to(request: &LdapOp) -> Option<fn(LdapResult) -> Vec<LdapOp>> {
    Some(match request {
        LdapOp::BindRequest(_) => {
            |res| vec![LdapOp::BindResponse(LdapBindResponse { res, saslcreds: None })]
        }
        LdapOp::SearchRequest(_) => |res| vec![LdapOp::SearchResultDone(res)],
        LdapOp::ModifyRequest(_) => |res| vec![LdapOp::ModifyResponse(res)],
        LdapOp::AddRequest(_) => |res| vec![LdapOp::AddResponse(res)],
        LdapOp::DelRequest(_) => |res| vec![LdapOp::DelResponse(res)],
        LdapOp::ModifyDNRequest(_) => |res| vec![LdapOp::ModifyDNResponse(res)],
        LdapOp::CompareRequest(_) => |res| vec![LdapOp::CompareResult(res)],
        LdapOp::ExtendedRequest(_) => |res| {
            let response = LdapExtendedResponse { res, name: None, value: None };
            vec![LdapOp::ExtendedResponse(response)]
        },
        LdapOp::AbandonRequest(_) | LdapOp::UnbindRequest => |_| Vec::new(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
