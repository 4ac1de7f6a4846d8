use std::{collections::HashMap, sync::LazyLock};

use prost_types::Struct;
use rapport_proto::events::Campaign;

use super::{
    context::{cut, text},
    page_address::{PageAddress, decoded},
};

/// What a parameter of a page's address tells.
#[derive(Debug, Clone, Copy)]
enum Parameter {
    /// Something of the campaign. Google's, Matomo's, and Baidu Tongji's.
    Names(Field),
    /// A click on an advertisement of this network.
    PaidClick(&'static str),
    /// A click id that says nothing of payment (Facebook puts one on every link), or whose name is
    /// too common to be dropped from an address.
    Click { network: &'static str, only_tracks: bool },
    /// Nothing that is kept.
    OnlyTracks,
}

use Parameter::{Click, Names, OnlyTracks, PaidClick};

#[rustfmt::skip]
const PARAMETERS: &[(&str, Parameter)] = &[
    ("utm_source", Names(Field::Source)),
    ("utm_medium", Names(Field::Medium)),
    ("utm_campaign", Names(Field::Name)),
    ("utm_term", Names(Field::Term)),
    ("utm_content", Names(Field::Content)),
    ("mtm_source", Names(Field::Source)),
    ("mtm_medium", Names(Field::Medium)),
    ("mtm_campaign", Names(Field::Name)),
    ("mtm_kwd", Names(Field::Term)),
    ("mtm_content", Names(Field::Content)),
    ("pk_campaign", Names(Field::Name)),
    ("pk_kwd", Names(Field::Term)),
    ("hmsr", Names(Field::Source)),
    ("hmmd", Names(Field::Medium)),
    ("hmpl", Names(Field::Name)),
    ("hmkw", Names(Field::Term)),
    ("hmci", Names(Field::Content)),
    ("gclid", PaidClick("google")),
    ("gbraid", PaidClick("google")),
    ("wbraid", PaidClick("google")),
    ("dclid", PaidClick("google")),
    ("msclkid", PaidClick("microsoft")),
    ("ttclid", PaidClick("tiktok")),
    ("twclid", PaidClick("x")),
    ("li_fat_id", PaidClick("linkedin")),
    ("epik", PaidClick("pinterest")),
    ("rdt_cid", PaidClick("reddit")),
    ("sccid", PaidClick("snapchat")),
    ("yclid", PaidClick("yandex")),
    ("ymclid", PaidClick("yandex")),
    ("bd_vid", PaidClick("baidu")),
    ("qhclickid", PaidClick("360")),
    ("gdt_vid", PaidClick("tencent")),
    ("qz_gdt", PaidClick("tencent")),
    ("irclickid", PaidClick("impact")),
    ("awc", PaidClick("awin")),
    ("cjevent", PaidClick("cj")),
    ("fbclid", Click { network: "facebook", only_tracks: true }),
    ("clickid", Click { network: "oceanengine", only_tracks: false }),
    ("gclsrc", OnlyTracks), ("gad_source", OnlyTracks), ("gad_campaignid", OnlyTracks), ("utm_id", OnlyTracks),
    ("utm_source_platform", OnlyTracks), ("utm_creative_format", OnlyTracks), ("utm_marketing_tactic", OnlyTracks),
    ("_ga", OnlyTracks), ("_gl", OnlyTracks), ("mc_cid", OnlyTracks), ("mc_eid", OnlyTracks), ("_hsenc", OnlyTracks),
    ("_hsmi", OnlyTracks), ("igshid", OnlyTracks), ("igsh", OnlyTracks), ("mkt_tok", OnlyTracks),
    ("vero_id", OnlyTracks), ("spm", OnlyTracks), ("scm", OnlyTracks),
];

static BY_NAME: LazyLock<HashMap<&[u8], Parameter>> =
    LazyLock::new(|| PARAMETERS.iter().map(|(name, parameter)| (name.as_bytes(), *parameter)).collect());

/// The longest name on the list has 20 bytes.
const NAME_BYTES: usize = 24;

/// What a parameter with this name tells; letter case does not count.
fn parameter(name: &str) -> Option<Parameter> {
    let mut lower = [0u8; NAME_BYTES];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    BY_NAME.get(&*lower).copied()
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Source,
    Medium,
    Name,
    Term,
    Content,
}

fn field(campaign: &mut Campaign, field: Field) -> &mut String {
    match field {
        Field::Source => &mut campaign.source,
        Field::Medium => &mut campaign.medium,
        Field::Name => &mut campaign.name,
        Field::Term => &mut campaign.term,
        Field::Content => &mut campaign.content,
    }
}

/// What one of these may hold; a click id of Google has about 100 bytes.
const VALUE_BYTES: usize = 256;

/// The campaign that brought the visit. What the client put in `context.campaign` goes before the
/// parameters of the page's address; of two parameters for one thing the first counts. `None` when
/// neither names one.
pub fn campaign(page_url: &str, context: Option<&Struct>) -> Option<Campaign> {
    let mut found = Campaign::default();
    let mut any = false;
    for (name, value) in context.into_iter().flat_map(|c| &c.fields) {
        let which = match name.as_str() {
            "source" => Field::Source,
            "medium" => Field::Medium,
            "name" => Field::Name,
            "term" => Field::Term,
            "content" => Field::Content,
            _ => continue,
        };
        let value = cut(text(value).trim(), VALUE_BYTES);
        any |= !value.is_empty();
        field(&mut found, which).push_str(value);
    }
    let query = page_url.find('?').and_then(|_| PageAddress::parse(page_url));
    for (name, value) in query.iter().flat_map(PageAddress::parameters).filter(|(_, value)| value.len() > 1) {
        match parameter(name) {
            Some(Names(which)) => {
                let slot = field(&mut found, which);
                if slot.is_empty() {
                    *slot = cut(decoded(value).trim(), VALUE_BYTES).to_owned();
                    any |= !slot.is_empty();
                }
            }
            Some(PaidClick(network) | Click { network, .. }) if found.click_id.is_empty() => {
                found.click_id = cut(&decoded(value), VALUE_BYTES).to_owned();
                network.clone_into(&mut found.click_network);
                any = true;
            }
            Some(PaidClick(_) | Click { .. } | OnlyTracks) | None => {}
        }
    }
    any.then_some(found)
}

/// Whether a parameter only tells where a visit came from, so that two addresses that differ in it
/// are one page.
pub fn is_tracking(name: &str) -> bool {
    parameter(name).is_some_and(|parameter| !matches!(parameter, Click { only_tracks: false, .. }))
}

/// Whether an advertisement was clicked: an advertiser's click id, or a medium that is paid.
pub(super) fn is_paid(page: &PageAddress<'_>) -> bool {
    page.parameters().filter(|(_, value)| value.len() > 1).any(|(name, value)| match parameter(name) {
        Some(PaidClick(_)) => true,
        Some(Names(Field::Medium)) => is_paid_medium(&decoded(value)),
        Some(Names(_) | Click { .. } | OnlyTracks) | None => false,
    })
}

/// What Google Analytics takes for paid.
fn is_paid_medium(medium: &str) -> bool {
    let medium = medium.trim().to_ascii_lowercase();
    medium.starts_with("paid")
        || matches!(
            medium.as_str(),
            "cpc" | "ppc" | "cpm" | "cpv" | "cpa" | "cpp" | "cpt" | "retargeting" | "display" | "banner" | "sem"
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rapport_events::json::to_struct;
    use serde_json::json;

    use super::*;

    #[test]
    fn utm_parameters_make_a_campaign_in_any_spelling() {
        let url = "https://shop.example/?UTM_Source=news%20letter&utm_medium=email&utm_campaign=spring+sale&x=1";
        let found = campaign(url, None).unwrap();
        assert_eq!(
            (found.source.as_str(), found.medium.as_str(), found.name.as_str()),
            ("news letter", "email", "spring sale")
        );
        let baidu = campaign("https://shop.example/?hmsr=%E7%99%BE%E5%BA%A6&hmpl=p1&bd_vid=77", None).unwrap();
        assert_eq!((baidu.source.as_str(), baidu.name.as_str(), baidu.click_network.as_str()), ("百度", "p1", "baidu"));
    }

    #[test]
    fn the_first_click_id_counts_and_names_its_network() {
        for (parameter, network) in [
            ("gclid", "google"),
            ("wbraid", "google"),
            ("dclid", "google"),
            ("fbclid", "facebook"),
            ("msclkid", "microsoft"),
            ("ttclid", "tiktok"),
        ] {
            let found = campaign(&format!("https://a.example/?{parameter}=Ab-1_2&twclid=no"), None).unwrap();
            assert_eq!((found.click_id.as_str(), found.click_network.as_str()), ("Ab-1_2", network));
        }
    }

    #[test]
    fn the_clients_own_word_goes_before_the_address() {
        let context = to_struct("c", json!({"source": "app", "name": 7, "other": "x"})).unwrap();
        let found = campaign("https://a.example/?utm_source=web&utm_term=t", Some(&context)).unwrap();
        assert_eq!((found.source.as_str(), found.term.as_str(), found.name.as_str()), ("app", "t", ""));
    }

    #[test]
    fn an_ordinary_address_names_none() {
        for url in
            ["", "https://a.example/", "https://a.example/?q=utm_source", "https://a.example/?utm_source=&gclid="]
        {
            assert_eq!(campaign(url, None), None, "{url}");
        }
        assert_eq!(campaign("", Some(&Struct::default())), None);
    }

    #[test]
    fn a_parameter_that_changes_the_page_is_not_tracking() {
        assert!(is_tracking("utm_source") && is_tracking("GCLID") && is_tracking("utm_id"));
        assert!(!is_tracking("q") && !is_tracking("page") && !is_tracking("id") && !is_tracking("clickid"));
    }

    proptest! {
        #[test]
        fn every_address_gives_a_bounded_answer(query in "[a-z_=&%+0-9]{0,200}", long in "[a-z]{0,900}") {
            for url in [format!("https://a.example/?{query}"), format!("https://a.example/?utm_source={long}&gclid={long}")] {
                if let Some(c) = campaign(&url, None) {
                    for text in [&c.source, &c.medium, &c.name, &c.term, &c.content, &c.click_id] {
                        prop_assert!(text.len() <= VALUE_BYTES);
                    }
                }
            }
        }
    }
}
