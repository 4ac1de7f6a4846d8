//! Keyed hashing of direct identifiers. Unkeyed hashes of e-mail addresses and phone numbers can be
//! reversed by trying; with a key only its holder can link them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::personal_numbers;

/// The prefix of every pseudonym: it shows that a value was hashed, and keeps it from being hashed
/// again.
pub const PREFIX: &str = "hk1_";

/// HMAC-SHA-256 under the operator's key, cut to 128 bits and written as hex.
#[derive(Clone)]
pub struct Pseudonymiser {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for Pseudonymiser {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonymiser")
    }
}

impl Pseudonymiser {
    /// `None` when the key is shorter than 16 bytes.
    pub fn new(key: &[u8]) -> Option<Self> {
        if key.len() < 16 {
            return None;
        }
        let keyed = Hmac::<Sha256>::new_from_slice(key).ok()?;
        Some(Self { keyed })
    }

    /// The operator's key as it stands in a configuration: text of at least 16 bytes, or hex after
    /// `hex:`.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn from_config(key: &str) -> Result<Self, String> {
        let bytes = match key.strip_prefix("hex:") {
            Some(digits) => {
                hex::decode(digits.trim()).map_err(|_| "the hash key is not hex after `hex:`".to_owned())?
            }
            None => key.as_bytes().to_vec(),
        };
        Self::new(&bytes).ok_or_else(|| format!("the hash key must have 16 bytes or more, has {}", bytes.len()))
    }

    /// The same text gives the same pseudonym within a tenant, and another one in another tenant.
    /// Letter case and outer white space do not count. A pseudonym stays as it is.
    pub fn pseudonym(&self, tenant: &crate::Tenant, text: &str) -> String {
        if text.starts_with(PREFIX) {
            return text.to_owned();
        }
        format!("{PREFIX}{}", hex::encode(&self.digest(tenant, text)[..16]))
    }

    /// The whole of the keyed hash that a pseudonym is cut from, for tokens of another form.
    pub fn digest(&self, tenant: &crate::Tenant, text: &str) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(tenant.as_str().as_bytes());
        mac.update(b"/");
        mac.update(text.trim().to_lowercase().as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A customer id as it is stored: one that names a person by itself (an e-mail address, a phone
    /// number with `+`, a Chinese mobile or resident identity card number) is hashed, any other
    /// stays. The cleaner writes with this and every reader looks up with it. Separators in a number
    /// do not count: `138 1234 5678` and `+8613812345678` are one customer.
    pub fn customer_id(&self, tenant: &crate::Tenant, id: &str) -> String {
        self.personal_id(tenant, id).unwrap_or_else(|| id.to_owned())
    }

    /// [`Self::customer_id`] of an id that does not stay as it is; `None` for one that does.
    pub fn personal_id(&self, tenant: &crate::Tenant, id: &str) -> Option<String> {
        if looks_like_email(id) {
            return Some(self.pseudonym(tenant, id));
        }
        personal_numbers::canonical(id).map(|number| self.pseudonym(tenant, &number))
    }
}

/// `local@domain.tld`, roughly: what would identify a person by itself.
pub fn looks_like_email(text: &str) -> bool {
    let text = text.trim();
    let Some((local, domain)) = text.split_once('@') else { return false };
    !local.is_empty()
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
        && !text.contains(char::is_whitespace)
        && !domain.contains('@')
}

/// An international number (`+` and 8 to 15 digits, E.164, with the usual separators). A run of
/// digits without the `+` is taken for an id, which is what it mostly is.
pub fn looks_like_phone(text: &str) -> bool {
    text.trim().starts_with('+') && personal_numbers::canonical(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tenant;

    #[test]
    fn a_pseudonym_is_stable_keyed_and_separate_by_tenant() {
        let (one, two) = (Pseudonymiser::new(&[1; 32]).unwrap(), Pseudonymiser::new(&[2; 32]).unwrap());
        let (acme, bolt) = (Tenant::parse("acme").unwrap(), Tenant::parse("bolt").unwrap());
        let hashed = one.pseudonym(&acme, "Ann@Example.com");
        assert_eq!(hashed, one.pseudonym(&acme, " ann@example.com "));
        assert_eq!(hashed, one.pseudonym(&acme, &hashed), "hashing twice changes nothing");
        assert_ne!(hashed, two.pseudonym(&acme, "Ann@Example.com"));
        assert_ne!(hashed, one.pseudonym(&bolt, "Ann@Example.com"));
    }

    #[test]
    fn one_phone_number_is_one_customer_in_every_spelling() {
        let p = Pseudonymiser::new(&[1; 32]).unwrap();
        let acme = Tenant::parse("acme").unwrap();
        for (one, other) in [("+49 151 2345678", "+491512345678"), ("13812345678", "+86 138-1234-5678")] {
            assert_eq!(p.customer_id(&acme, one), p.customer_id(&acme, other));
        }
    }

    #[test]
    fn ids_that_name_a_person_are_hashed_and_others_stay() {
        let p = Pseudonymiser::new(&[1; 32]).unwrap();
        let acme = Tenant::parse("acme").unwrap();
        assert!(p.customer_id(&acme, "ann@example.com").starts_with(PREFIX));
        assert!(p.customer_id(&acme, "+49 (151) 234-5678").starts_with(PREFIX));
        assert!(p.customer_id(&acme, "11010519491231002x").starts_with(PREFIX));
        for id in ["42", "user-7", "4915123456789", "a@b", "@home.de"] {
            assert_eq!(p.customer_id(&acme, id), id);
        }
    }
}
