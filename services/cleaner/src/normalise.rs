//! One spelling for one thing, so that counts and look-ups agree.

use rapport_events::{EventType, FieldError};
use rapport_proto::events::Event;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The type in its countable form; ids and category trimmed and in Unicode's NFC; the currency in
/// capitals.
///
/// # Errors
/// None that [`crate::validate`] has not refused before.
pub fn event(event: &mut Event) -> Result<(), FieldError> {
    event.r#type = EventType::parse(&event.r#type)?.into_string();
    for text in
        [&mut event.event_id, &mut event.customer_id, &mut event.anonymous_id, &mut event.item_id, &mut event.category]
    {
        tidy(text);
    }
    if !event.currency.is_empty() {
        event.currency = event.currency.trim().to_ascii_uppercase();
    }
    if event.event_id.is_empty() {
        return Err(FieldError::schema("event_id", "is only white space"));
    }
    Ok(())
}

/// Trims and composes, without a copy when there is nothing to do.
fn tidy(text: &mut String) {
    let trimmed = text.trim();
    if trimmed.len() == text.len() && is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return;
    }
    *text = trimmed.nfc().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_item_become_one() {
        let spelled = |item: &str| {
            let mut e = Event { event_id: "1".into(), r#type: "View".into(), item_id: item.into(), ..Event::default() };
            event(&mut e).unwrap();
            (e.r#type, e.item_id)
        };
        assert_eq!(spelled(" cafe\u{301} "), ("view".into(), "café".into()));
        assert_eq!(spelled("café"), ("view".into(), "café".into()));
    }
}
