//! The assertions of a session: what it remembers, and the next one.

use std::sync::Arc;

use crate::session::VerifiedIdentity;
use crate::token::{Assertion, AssertionError, AssertionIssuer, Remembered, Stated};

impl VerifiedIdentity {
    /// Whether an assertion states this identity and need not be renewed yet.
    #[must_use]
    pub fn is_stated_by(&self, assertion: &Assertion) -> bool {
        assertion.is_fresh(self.now())
            && assertion.stated().is(self.subject(), self.role(), self.attributes())
    }

    fn stated(&self) -> Stated {
        Stated {
            subject: self.subject().clone(),
            role: self.role().clone(),
            attributes: self.attributes().cloned(),
        }
    }

    /// What this session remembers of an issuer's.
    #[must_use]
    pub fn assertion(&self, issuer: &AssertionIssuer) -> Remembered {
        issuer.look(self.assertions(), &self.stated(), self.now())
    }

    /// A new assertion, unless another request has just had one signed.
    ///
    /// # Errors
    /// When attributes are needed and not known, or it cannot be signed.
    pub async fn renew_assertion(
        &self,
        issuer: &AssertionIssuer,
    ) -> Result<Arc<Assertion>, AssertionError> {
        let session = (self.session(), self.session_expires_at());
        issuer.renew(self.assertions(), &self.stated(), session, self.now()).await
    }
}
