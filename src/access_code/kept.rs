//! What the store keeps with a code's keyed hash: never the code.

use serde::{Deserialize, Serialize};

use crate::identity::{Reference, Subject};

/// What is known of a live code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Who gave it out.
    pub(super) issuer: String,
    /// What it was given out with.
    pub(super) reference: Option<Reference>,
    /// A random name, which proves nothing.
    pub(super) id: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    issuer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    id: String,
}

impl Kept {
    /// Who acts when the code is redeemed.
    pub(super) fn subject(&self) -> Subject {
        Subject::new(&format!("access-code:{}", self.id))
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let reference = self.reference.as_ref().map(|it| it.as_str().to_owned());
        let wire = Wire { issuer: self.issuer.clone(), reference, id: self.id.clone() };
        // Texts alone always become JSON.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// `None` for what this version did not write.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let Wire { issuer, reference, id } = serde_json::from_slice(value).ok()?;
        let reference = match reference {
            Some(text) => Some(Reference::parse(&text)?),
            None => None,
        };
        Some(Self { issuer, reference, id })
    }
}

#[cfg(test)]
mod tests {
    use super::Kept;
    use crate::identity::Reference;

    #[test]
    fn what_is_kept_reads_back_as_itself() {
        for reference in [None, Reference::parse("case 17")] {
            let kept = Kept { issuer: "zoë".to_owned(), reference, id: "id".to_owned() };
            assert_eq!(Kept::read(&kept.write()), Some(kept));
        }
        assert_eq!(Kept::read(b""), None);
        assert_eq!(Kept::read(br#"{"issuer":"a","id":"b","reference":""}"#), None);
    }
}
