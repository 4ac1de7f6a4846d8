use rapport_events::{FieldError, is_currency};
use rapport_policy::Normalise;
use rapport_proto::events::Event;

use super::numbers::{convert, rounded};

/// What people write for a currency, besides its code. `$` and `¥` mean several, so they are for the
/// policy to say.
const ALIASES: &[(&str, &str)] = &[
    ("€", "EUR"),
    ("euro", "EUR"),
    ("£", "GBP"),
    ("us$", "USD"),
    ("rmb", "CNY"),
    ("cnh", "CNY"),
    ("cn¥", "CNY"),
    ("元", "CNY"),
    ("人民币", "CNY"),
    ("jp¥", "JPY"),
    ("円", "JPY"),
    ("hk$", "HKD"),
    ("nt$", "TWD"),
    ("ntd", "TWD"),
    ("₩", "KRW"),
    ("₹", "INR"),
    ("₽", "RUB"),
    ("₺", "TRY"),
    ("₫", "VND"),
    ("฿", "THB"),
    ("r$", "BRL"),
    ("zł", "PLN"),
    ("kč", "CZK"),
];

/// The currency as its ISO 4217 code in capitals.
///
/// # Errors
/// A text that is neither a code nor an alias.
pub(super) fn currency(event: &mut Event, rules: &Normalise) -> Result<(), FieldError> {
    if event.currency.is_empty() || (is_code(&event.currency) && !has_alias(&event.currency, rules)) {
        return Ok(());
    }
    let written = event.currency.trim();
    let lower = written.to_lowercase();
    let own = rules.currencies.iter().find(|(name, _)| name.to_lowercase() == lower).map(|(_, code)| code.as_str());
    let built_in = || ALIASES.iter().find(|(name, _)| *name == lower).map(|(_, code)| *code);
    let code = own.or_else(built_in).unwrap_or(written);
    if !written.is_empty() && !is_currency(code) {
        return Err(FieldError::schema(
            "currency",
            format!(
                "must be an ISO 4217 code like EUR, is {written:?}; a name of your own belongs in the policy under \
                 normalise.currencies"
            ),
        )
        .by_rule("normalise"));
    }
    event.currency = code.to_ascii_uppercase();
    Ok(())
}

fn is_code(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Three letters may stand for another three: RMB is CNY.
fn has_alias(code: &str, rules: &Normalise) -> bool {
    ALIASES.iter().any(|(name, _)| name.eq_ignore_ascii_case(code))
        || rules.currencies.keys().any(|name| name.eq_ignore_ascii_case(code))
}

/// Amounts in cents become amounts in the currency's unit: divided by 10 to the power of the
/// currency's decimals, 100 for most. The field with cents goes; a client's own amount stays.
pub(super) fn minor_units(event: &mut Event, rules: &Normalise) {
    let divisor = 10f64.powi(decimals(&event.currency));
    for (from, into) in &rules.minor_units {
        convert(event, from, into, false, |amount| rounded(amount / divisor));
    }
}

/// How many decimals a currency has (ISO 4217, the exceptions from two).
fn decimals(code: &str) -> i32 {
    match code {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "VND" | "VUV"
        | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}
