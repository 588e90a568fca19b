//! All patterns of one host as a tree over their careless readings. The most
//! specific place for a path is found first and then asked whether it matches
//! letter by letter: a near-miss of it never falls through to a wider one.

use std::sync::Arc;

use crate::policy::fold;
use crate::policy::method::Methods;
use crate::policy::own::OwnEndpoint;
use crate::policy::pattern::{End, Pattern, Segment};
use crate::policy::route::Route;

/// One pattern, and whose it is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pattern: Pattern,
    pub(super) owner: Owner,
    /// The path as configured.
    pub(super) path: String,
}

/// Whose a path is.
#[derive(Debug)]
pub(super) enum Owner {
    /// The gateway's.
    Own(OwnEndpoint),
    /// The gateway's, not built yet; never forwarded.
    Reserved,
    /// The route table's: the rows of this path.
    Rows(Vec<(Methods, Arc<Route>)>),
}

/// A node: what follows one careless reading of a path's beginning.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Literal next segments, folded and sorted.
    children: Vec<(Box<str>, Tree)>,
    parameter: Option<Box<Tree>>,
    /// Patterns that end here, with or without a slash. Several differ only in
    /// spelling, and at most one of them matches a path letter by letter.
    here: Vec<Place>,
    /// Patterns whose `**` begins here.
    rest: Vec<Place>,
}

impl Tree {
    /// Puts a place in. A path that is there already gets further rows, unless it
    /// is the gateway's: ours, and all below a reserved `**`, is not for routes.
    pub(super) fn insert(&mut self, place: Place) {
        let mut node = self;
        for segment in place.pattern.segments() {
            if node.is_reserved() {
                return;
            }
            node = match segment {
                Segment::Literal(text) => node.child_mut(fold::folded(text)),
                Segment::Parameter => node.parameter.get_or_insert_default(),
            };
        }
        if node.is_reserved() {
            return;
        }
        let places = if place.pattern.end() == End::Rest { &mut node.rest } else { &mut node.here };
        match places.iter_mut().find(|known| known.pattern == place.pattern) {
            None => places.push(place),
            Some(known) => {
                if let (Owner::Rows(rows), Owner::Rows(more)) = (&mut known.owner, place.owner) {
                    rows.extend(more);
                }
            }
        }
    }

    /// The places of the most specific pattern that a careless upstream could
    /// take the decoded path for. Segment by segment from the left, a literal is
    /// more specific than a parameter, and a parameter than `**`.
    pub(super) fn most_specific(&self, path: &str) -> &[Place] {
        let below_root = path.strip_prefix('/').unwrap_or(path);
        let path = below_root.strip_suffix('/').unwrap_or(below_root);
        self.walk((!path.is_empty()).then_some(path)).unwrap_or_default()
    }

    fn walk(&self, path: Option<&str>) -> Option<&[Place]> {
        let deeper = match path {
            None => non_empty(&self.here),
            Some(path) => {
                let (segment, below) = match path.split_once('/') {
                    Some((segment, below)) => (segment, Some(below)),
                    None => (path, None),
                };
                let literal = self.child(segment).and_then(|child| child.walk(below));
                literal.or_else(|| self.parameter.as_ref().and_then(|child| child.walk(below)))
            }
        };
        deeper.or_else(|| non_empty(&self.rest))
    }

    fn child(&self, segment: &str) -> Option<&Self> {
        let at = self.children.binary_search_by(|(name, _)| fold::compare(name, segment)).ok()?;
        self.children.get(at).map(|(_, child)| child)
    }

    fn child_mut(&mut self, folded: String) -> &mut Self {
        let at = match self.children.binary_search_by(|(name, _)| (**name).cmp(&folded)) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (folded.into(), Self::default()));
                at
            }
        };
        &mut self.children[at].1
    }

    fn is_reserved(&self) -> bool {
        self.rest.iter().any(|place| matches!(place.owner, Owner::Reserved))
    }
}

fn non_empty(places: &[Place]) -> Option<&[Place]> {
    (!places.is_empty()).then_some(places)
}
