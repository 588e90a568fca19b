//! One row of the route table, and whom it lets through. Knows no paths.

use std::sync::Arc;

use crate::config::Access;
use crate::identity::Role;

/// One row of the route table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its place in `Config::routes`.
    pub index: usize,
    /// Its label in metrics and audit.
    pub label: Arc<str>,
    /// Who may use it.
    pub access: Access,
    /// Index into `Config::upstreams`.
    pub upstream: usize,
    /// Whether its requests leave a session as idle as it was.
    pub passive: bool,
    /// The roles of `[[directory.role]]`.
    directory_roles: Arc<[Role]>,
}

impl Route {
    /// The row of a configured route.
    pub(super) fn new(
        index: usize,
        route: &crate::config::Route,
        directory_roles: &Arc<[Role]>,
    ) -> Self {
        Self {
            index,
            label: Arc::from(route.label.as_str()),
            access: route.access.clone(),
            upstream: route.upstream,
            passive: route.passive,
            directory_roles: Arc::clone(directory_roles),
        }
    }

    /// Whether everybody may use it, with or without a session.
    #[must_use]
    pub const fn is_public(&self) -> bool {
        matches!(self.access, Access::Public)
    }

    /// Whether somebody in this role may use it.
    #[must_use]
    pub fn allows(&self, role: &Role) -> bool {
        match &self.access {
            Access::Public => true,
            Access::Authenticated => {
                !role.is_of_access_code() && self.directory_roles.contains(role)
            }
            Access::Roles(roles) => roles.contains(role),
        }
    }
}
