//! The entries of the demo directory and the searches over them: scope, filter,
//! size limit, requested attributes. Knows nothing of connections or messages.

use ldap3_proto::{LdapFilter, LdapPartialAttribute, LdapSearchResultEntry, LdapSearchScope};

use super::dn::Dn;
use crate::secret::Secret;

/// One entry. A password is no attribute: it can be neither read nor filtered by.
pub(super) struct Entry {
    dn: String,
    key: Dn,
    attributes: Vec<(&'static str, Vec<String>)>,
    password: Option<Secret<String>>,
}

impl Entry {
    /// An entry with one value an attribute; attributes of the same name gather.
    /// `None` when `dn` is no distinguished name.
    pub(super) fn new(dn: &str, values: &[(&'static str, &str)]) -> Option<Self> {
        let mut attributes: Vec<(&'static str, Vec<String>)> = Vec::new();
        for (name, value) in values {
            match attributes.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push((*value).to_owned()),
                None => attributes.push((*name, vec![(*value).to_owned()])),
            }
        }
        Some(Self { dn: dn.to_owned(), key: Dn::parse(dn)?, attributes, password: None })
    }

    /// The same entry, able to bind.
    pub(super) fn with_password(self, password: Secret<String>) -> Self {
        Self { password: Some(password), ..self }
    }

    /// The name as a directory gives it out.
    pub(super) fn dn(&self) -> &str {
        &self.dn
    }

    /// The name in comparable form.
    pub(super) const fn key(&self) -> &Dn {
        &self.key
    }

    /// What a bind must present; `None` when nobody can bind as this entry.
    pub(super) const fn password(&self) -> Option<&Secret<String>> {
        self.password.as_ref()
    }

    fn values(&self, attribute: &str) -> Option<&[String]> {
        let found = self.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
        found.map(|(_, values)| values.as_slice())
    }

    /// The entry with the attributes asked for: none named means all, `1.1` means none.
    pub(super) fn answer(&self, wanted: &[String], types_only: bool) -> LdapSearchResultEntry {
        let all = wanted.is_empty() || wanted.iter().any(|name| name == "*");
        let is_wanted = |name: &str| all || wanted.iter().any(|it| it.eq_ignore_ascii_case(name));
        let bytes = |values: &[String]| -> Vec<Vec<u8>> {
            values.iter().filter(|_| !types_only).map(|it| it.as_bytes().to_vec()).collect()
        };
        let attributes = self.attributes.iter().filter(|(name, _)| is_wanted(name));
        LdapSearchResultEntry {
            dn: self.dn.clone(),
            attributes: attributes
                .map(|(name, values)| LdapPartialAttribute {
                    atype: (*name).to_owned(),
                    vals: bytes(values),
                })
                .collect(),
        }
    }
}

/// All entries, parents before children.
pub(super) struct Tree(Vec<Entry>);

impl Tree {
    /// A tree of these entries.
    pub(super) const fn new(entries: Vec<Entry>) -> Self {
        Self(entries)
    }

    /// The entry of this name.
    pub(super) fn get(&self, key: &Dn) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == *key)
    }

    /// The entries within `scope` of `base` for which `filter` is true.
    pub(super) fn find<'t>(
        &'t self,
        base: &'t Dn,
        scope: &'t LdapSearchScope,
        filter: &'t LdapFilter,
    ) -> impl Iterator<Item = &'t Entry> {
        self.0.iter().filter(move |entry| {
            let in_scope = match scope {
                LdapSearchScope::Base => entry.key == *base,
                LdapSearchScope::OneLevel => entry.key.parent().as_ref() == Some(base),
                LdapSearchScope::Subtree => entry.key.is_within(base),
                LdapSearchScope::Children => entry.key.is_within(base) && entry.key != *base,
            };
            in_scope && self.judge(filter, entry) == Some(true)
        })
    }

    /// RFC 4511 section 4.5.1.7: true, false, or undefined (`None`) where the
    /// attribute is unknown here or the comparison is not offered.
    fn judge(&self, filter: &LdapFilter, entry: &Entry) -> Option<bool> {
        match filter {
            LdapFilter::And(all) => decided_by(false, all.iter().map(|one| self.judge(one, entry))),
            LdapFilter::Or(any) => decided_by(true, any.iter().map(|one| self.judge(one, entry))),
            LdapFilter::Not(one) => self.judge(one, entry).map(|verdict| !verdict),
            LdapFilter::Present(attribute) => Some(entry.values(attribute).is_some()),
            LdapFilter::Equality(attribute, value) | LdapFilter::Approx(attribute, value) => {
                self.equals(entry, attribute, value)
            }
            LdapFilter::Substring(..)
            | LdapFilter::GreaterOrEqual(..)
            | LdapFilter::LessOrEqual(..)
            | LdapFilter::Extensible(..) => None,
        }
    }

    fn equals(&self, entry: &Entry, attribute: &str, value: &str) -> Option<bool> {
        let Some(values) = entry.values(attribute) else {
            return self.knows(attribute).then_some(false);
        };
        if holds_names(attribute) {
            let wanted = Dn::parse(value)?;
            return Some(values.iter().any(|it| Dn::parse(it).as_ref() == Some(&wanted)));
        }
        let wanted = folded(value);
        Some(values.iter().any(|it| folded(it) == wanted))
    }

    fn knows(&self, attribute: &str) -> bool {
        self.0.iter().any(|entry| entry.values(attribute).is_some())
    }
}

/// Conjunction (decided by one false) or disjunction (decided by one true) of
/// three-valued verdicts; without a decisive one, one undefined leaves it undefined.
fn decided_by(decisive: bool, verdicts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(!decisive);
    for verdict in verdicts {
        match verdict {
            Some(it) if it == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

/// Whether an attribute's values are distinguished names.
fn holds_names(attribute: &str) -> bool {
    ["member", "memberOf"].iter().any(|name| name.eq_ignore_ascii_case(attribute))
}

/// caseIgnoreMatch (RFC 4517 section 4.2.11), without Unicode preparation.
fn folded(value: &str) -> String {
    value.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use ldap3_proto::{LdapFilter, LdapSearchScope, parse_ldap_filter_str};

    use super::{Entry, Tree};
    use crate::demo::dn::Dn;

    fn tree() -> Tree {
        Tree::new(vec![
            Entry::new("dc=org", &[("objectClass", "domain"), ("dc", "org")]).unwrap(),
            Entry::new("ou=people,dc=org", &[("objectClass", "organizationalUnit")]).unwrap(),
            Entry::new(
                "uid=ada,ou=people,dc=org",
                &[("objectClass", "top"), ("objectClass", "inetOrgPerson"), ("uid", "ada")],
            )
            .unwrap(),
            Entry::new(
                "cn=all,dc=org",
                &[("objectClass", "groupOfNames"), ("member", "uid=ada,ou=people,dc=org")],
            )
            .unwrap(),
        ])
    }

    fn found(base: &str, scope: &LdapSearchScope, filter: &LdapFilter) -> Vec<String> {
        let (tree, base) = (tree(), Dn::parse(base).unwrap());
        tree.find(&base, scope, filter).map(|entry| entry.dn().to_owned()).collect()
    }

    #[test]
    fn filters_are_judged_in_three_values() {
        let subtree = |filter: &str| {
            let filter = parse_ldap_filter_str(filter).unwrap();
            found("dc=org", &LdapSearchScope::Subtree, &filter)
        };
        let ada = ["uid=ada,ou=people,dc=org"];
        assert_eq!(subtree("(&(objectClass=inetOrgPerson)(UID=ADA))"), ada);
        assert_eq!(subtree("(|(uid=nobody)(uid=ada))"), ada);
        assert_eq!(subtree("(uid=*)"), ada);
        let member = "UID=Ada, OU=people,DC=org".to_owned();
        let member = LdapFilter::Equality("member".to_owned(), member);
        assert_eq!(found("dc=org", &LdapSearchScope::Subtree, &member), ["cn=all,dc=org"]);
        assert_eq!(subtree("(!(objectClass=top))").len(), 3);
        assert!(subtree("(!(nosuchattribute=x))").is_empty(), "undefined stays undefined");
        assert_eq!(subtree("(|(nosuchattribute=x)(uid=ada))"), ada);
        for (filter, count) in [(LdapFilter::And(vec![]), 4), (LdapFilter::Or(vec![]), 0)] {
            let found = found("dc=org", &LdapSearchScope::Subtree, &filter);
            assert_eq!(found.len(), count, "RFC 4526: true and false");
        }
    }

    #[test]
    fn a_scope_bounds_the_search() {
        let all = &LdapFilter::Present("objectClass".to_owned());
        assert_eq!(found("dc=org", &LdapSearchScope::Base, all), ["dc=org"]);
        assert_eq!(
            found("dc=org", &LdapSearchScope::OneLevel, all),
            ["ou=people,dc=org", "cn=all,dc=org"]
        );
        assert_eq!(found("dc=org", &LdapSearchScope::Subtree, all).len(), 4);
        assert_eq!(found("dc=org", &LdapSearchScope::Children, all).len(), 3);
    }

    #[test]
    fn only_the_attributes_asked_for_are_given() {
        let tree = tree();
        let ada = tree.get(&Dn::parse("uid=ada,ou=people,dc=org").unwrap()).unwrap();
        let names = |wanted: &[&str]| -> Vec<String> {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            ada.answer(&wanted, false).attributes.into_iter().map(|it| it.atype).collect()
        };
        assert_eq!(names(&[]), ["objectClass", "uid"]);
        assert_eq!(names(&["UID", "mail"]), ["uid"]);
        assert!(names(&["1.1"]).is_empty());
        let bare = ada.answer(&[], true).attributes;
        assert_eq!(bare.iter().map(|it| it.vals.len()).collect::<Vec<_>>(), [0, 0]);
    }
}
