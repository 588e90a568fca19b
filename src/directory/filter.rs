//! Search filters as a tree: text from a login reaches a filter only as a value
//! and is encoded there (RFC 4515), so it cannot change the filter's shape.

use std::fmt;

/// A search filter; `Display` encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// All of these.
    And(Vec<Filter>),
    /// Any of these.
    Or(Vec<Filter>),
    /// The attribute has the value.
    Equal(Attribute, String),
    /// The attribute has the value, which is no text.
    Bytes(Attribute, Vec<u8>),
    /// The attribute fits the value by a matching rule, named by its number.
    Matches(Attribute, &'static str, String),
    /// The attribute is there.
    Present(Attribute),
    /// A whole filter from the configuration.
    Configured(ConfiguredFilter),
}

/// The name of an attribute, known to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute(String);

/// A filter from the configuration, known to be one and to stand in its own parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfiguredFilter(String);

impl Attribute {
    /// Checks a name: a word or a number, with options; `None` for anything else.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';');
        let filter = format!("({name}=*)");
        (name.bytes().all(plain) && ldap3::parse_filter(filter).is_ok())
            .then(|| Self(name.to_owned()))
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConfiguredFilter {
    /// Checks a filter text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.starts_with('(') && ldap3::parse_filter(text).is_ok()).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = |operator: char, filters: &[Self]| {
            write!(f, "({operator}")?;
            filters.iter().try_for_each(|filter| filter.fmt(f))?;
            f.write_str(")")
        };
        match self {
            Self::And(filters) => list('&', filters),
            Self::Or(filters) => list('|', filters),
            Self::Equal(attribute, value) => {
                write!(f, "({}={})", attribute.0, ldap3::ldap_escape(value.as_str()))
            }
            Self::Bytes(attribute, value) => {
                write!(f, "({}=", attribute.0)?;
                value.iter().try_for_each(|byte| write!(f, "\\{byte:02x}"))?;
                f.write_str(")")
            }
            Self::Matches(attribute, rule, value) => {
                write!(f, "({}:{rule}:={})", attribute.0, ldap3::ldap_escape(value.as_str()))
            }
            Self::Present(attribute) => write!(f, "({}=*)", attribute.0),
            Self::Configured(filter) => f.write_str(&filter.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::{ASNTag as _, PL, StructureTag};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Attribute, ConfiguredFilter, Filter};
    use crate::identity::ClaimTemplates;

    fn login(name: &str) -> Filter {
        Filter::And(vec![
            Filter::Configured(ConfiguredFilter::parse("(objectClass=person)").unwrap()),
            Filter::Equal(Attribute::parse("uid").unwrap(), name.to_owned()),
        ])
    }

    #[test]
    fn a_name_cannot_change_the_filter() {
        assert_eq!(
            login("a*)(uid=\\").to_string(),
            r"(&(objectClass=person)(uid=a\2a\29\28uid=\5c))"
        );
    }

    #[test]
    fn bytes_and_rules_are_written_as_the_protocol_wants_them() {
        let attribute = || Attribute::parse("objectGUID").unwrap();
        let bytes = Filter::Bytes(attribute(), vec![0, b'*', 0xff]).to_string();
        assert_eq!(bytes, r"(objectGUID=\00\2a\ff)");
        let rule = Filter::Matches(attribute(), "1.2.3", "cn=a)(b,dc=x".to_owned()).to_string();
        assert_eq!(rule, r"(objectGUID:1.2.3:=cn=a\29\28b,dc=x)");
        for filter in [bytes, rule] {
            assert!(ldap3::parse_filter(filter).is_ok());
        }
    }

    #[test]
    fn only_whole_filters_and_attribute_names_are_taken_from_the_configuration() {
        for text in ["", "uid=a", "(uid=a", "(uid=a))", "(uid=a)(uid=b)", "(&(uid=a)", "(=a)"] {
            assert!(ConfiguredFilter::parse(text).is_none(), "{text}");
        }
        assert!(ConfiguredFilter::parse("(&(a=b)(!(c=*d)))").is_some());
        for name in ["", "u id", "uid=", "uid)(a", "*", "1x", "ë"] {
            assert!(Attribute::parse(name).is_none(), "{name}");
        }
        for name in ["uid", "sAMAccountName", "cn;lang-de", "2.5.4.3"] {
            assert!(Attribute::parse(name).is_some(), "{name}");
        }
    }

    proptest! {
        /// What a claim may ask for, the start must take.
        #[test]
        fn an_attribute_that_claims_may_ask_for_can_be_searched(name in "[a0-2.;-]{1,7}") {
            let claims = serde_json::json!({ "claim": format!("{{attr:{name}}}") });
            let parsed = ClaimTemplates::parse(claims.as_object().unwrap(), &[]);
            if parsed.is_ok() {
                prop_assert!(Attribute::parse(&name).is_some(), "{}", name);
            }
        }

        #[test]
        fn every_name_goes_over_the_wire_as_it_is(name in any::<String>()) {
            let encoded = ldap3::parse_filter(login(&name).to_string()).unwrap().into_structure();
            let PL::C(conditions) = encoded.payload else { panic!("not a list") };
            let StructureTag { payload: PL::C(comparison), .. } = &conditions[1] else { panic!() };
            prop_assert_eq!(conditions.len(), 2);
            prop_assert_eq!(&comparison[1].payload, &PL::P(name.into_bytes()));
        }
    }
}
