//! Direct identifiers leave the cleaner as keyed hashes, before anything else sees them.

use prost_types::{Struct, Value, value::Kind};
use rapport_events::{
    Tenant,
    pseudonym::{Pseudonymiser, looks_like_email, looks_like_phone},
};
use rapport_proto::events::Event;

/// Names of fields that hold a direct identifier, lower case and without separators: whatever
/// stands there is hashed.
const IDENTIFIERS: &[&str] = &[
    "email",
    "emailaddress",
    "mail",
    "phone",
    "phonenumber",
    "mobile",
    "mobilephone",
    "telephone",
    "firstname",
    "lastname",
    "fullname",
    "surname",
    "givenname",
    "familyname",
    "address",
    "street",
    "streetaddress",
    "ssn",
    "passport",
    "passportnumber",
    "taxid",
    "iban",
    "creditcard",
    "cardnumber",
    "ip",
    "ipaddress",
    "birthday",
    "dateofbirth",
];

/// Hashes, under the tenant's keyed pseudonyms: customer and anonymous ids that are e-mail
/// addresses or phone numbers; in `properties` and `traits` every value under a name that holds an
/// identifier, and every text that is one, wherever it stands. In traits `name` is a person's.
pub fn pseudonymise(event: &mut Event, tenant: &Tenant, keyed: &Pseudonymiser) {
    for id in [&mut event.customer_id, &mut event.anonymous_id] {
        *id = match id.strip_prefix(crate::identity::ANONYMOUS_PREFIX) {
            Some(inner) => format!("{}{}", crate::identity::ANONYMOUS_PREFIX, keyed.customer_id(tenant, inner)),
            None => keyed.customer_id(tenant, id),
        };
    }
    if let Some(properties) = &mut event.properties {
        object(properties, tenant, keyed, false);
    }
    if let Some(traits) = &mut event.traits {
        object(traits, tenant, keyed, true);
    }
}

fn object(object: &mut Struct, tenant: &Tenant, keyed: &Pseudonymiser, traits: bool) {
    for (name, inner) in &mut object.fields {
        let direct = is_identifier(name) || (traits && name.eq_ignore_ascii_case("name"));
        value(inner, tenant, keyed, direct);
    }
}

fn is_identifier(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    IDENTIFIERS.contains(&plain.as_str())
}

fn value(value: &mut Value, tenant: &Tenant, keyed: &Pseudonymiser, direct: bool) {
    match &mut value.kind {
        Some(Kind::StringValue(text)) => {
            if (direct && !text.is_empty()) || looks_like_email(text) || looks_like_phone(text) {
                *text = keyed.pseudonym(tenant, text);
            }
        }
        // A phone number sent as a number.
        Some(Kind::NumberValue(number)) if direct => {
            value.kind = Some(Kind::StringValue(keyed.pseudonym(tenant, &number.to_string())));
        }
        Some(Kind::StructValue(inner)) => {
            for (name, inner) in &mut inner.fields {
                self::value(inner, tenant, keyed, direct || is_identifier(name));
            }
        }
        Some(Kind::ListValue(list)) => list.values.iter_mut().for_each(|v| self::value(v, tenant, keyed, direct)),
        Some(Kind::NumberValue(_) | Kind::BoolValue(_) | Kind::NullValue(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use rapport_events::{json, pseudonym::PREFIX};
    use serde_json::json;

    use super::*;

    #[test]
    fn no_direct_identifier_leaves_and_everything_else_stays() {
        let traits = json!({
            "E-Mail": "ann@example.com", "name": "Ann", "phone": 4_915_123_456.0, "plan": "gold",
            "address": {"street": "Main 1", "zip": "10115"}, "notes": ["call +49 151 2345678", "+49 151 2345678"],
        });
        let mut event = Event {
            customer_id: "Ann@Example.com".into(),
            properties: Some(
                json::to_struct("properties", json!({"name": "Blue shoe", "price": 10.5, "to": "b@c.de"})).unwrap(),
            ),
            traits: Some(json::to_struct("traits", traits).unwrap()),
            ..Event::default()
        };
        let keyed = Pseudonymiser::new(&[7; 32]).unwrap();
        pseudonymise(&mut event, &Tenant::parse("demo").unwrap(), &keyed);

        assert!(event.customer_id.starts_with(PREFIX));
        let traits = json::from_struct(&event.traits.unwrap());
        for path in ["/E-Mail", "/name", "/phone", "/address/street", "/address/zip", "/notes/1"] {
            let text = traits.pointer(path).and_then(|v| v.as_str()).unwrap_or_default();
            assert!(text.starts_with(PREFIX), "{path} is {text:?}");
        }
        assert_eq!(traits["plan"], "gold");
        let properties = json::from_struct(&event.properties.unwrap());
        assert_eq!((&properties["name"], &properties["price"]), (&json!("Blue shoe"), &json!(10.5)));
        assert!(properties["to"].as_str().unwrap().starts_with(PREFIX));
    }
}
