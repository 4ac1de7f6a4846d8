use prost_types::Struct;
use rapport_proto::events::Campaign;

use super::{
    context::{cut, text},
    page_address::{PageAddress, decoded},
};

/// Advertisers' click ids, and whose they are.
const CLICK_IDS: &[(&str, &str)] = &[
    ("gclid", "google"),
    ("gbraid", "google"),
    ("wbraid", "google"),
    ("dclid", "google"),
    ("gclsrc", ""),
    ("gad_source", ""),
    ("gad_campaignid", ""),
    ("msclkid", "microsoft"),
    ("fbclid", "facebook"),
    ("ttclid", "tiktok"),
    ("twclid", "x"),
    ("li_fat_id", "linkedin"),
    ("epik", "pinterest"),
    ("rdt_cid", "reddit"),
    ("sccid", "snapchat"),
    ("yclid", "yandex"),
    ("ymclid", "yandex"),
    ("bd_vid", "baidu"),
    ("qhclickid", "360"),
    ("gdt_vid", "tencent"),
    ("qz_gdt", "tencent"),
    ("clickid", "oceanengine"),
    ("irclickid", "impact"),
    ("awc", "awin"),
    ("cjevent", "cj"),
];

/// Not a paid click: Facebook puts it on every link.
const UNPAID: &[&str] = &["fbclid", "clickid"];

/// Parameters of a campaign, by what they say. Google's, Matomo's, and Baidu Tongji's.
const NAMED: &[(&str, Field)] = &[
    ("utm_source", Field::Source),
    ("utm_medium", Field::Medium),
    ("utm_campaign", Field::Name),
    ("utm_term", Field::Term),
    ("utm_content", Field::Content),
    ("mtm_source", Field::Source),
    ("mtm_medium", Field::Medium),
    ("mtm_campaign", Field::Name),
    ("mtm_kwd", Field::Term),
    ("mtm_content", Field::Content),
    ("pk_campaign", Field::Name),
    ("pk_kwd", Field::Term),
    ("hmsr", Field::Source),
    ("hmmd", Field::Medium),
    ("hmpl", Field::Name),
    ("hmkw", Field::Term),
    ("hmci", Field::Content),
];

/// They say nothing that is kept, and only track.
const ALSO_TRACKING: &[&str] = &[
    "utm_id",
    "utm_source_platform",
    "utm_creative_format",
    "utm_marketing_tactic",
    "_ga",
    "_gl",
    "mc_cid",
    "mc_eid",
    "_hsenc",
    "_hsmi",
    "igshid",
    "igsh",
    "mkt_tok",
    "vero_id",
    "spm",
    "scm",
];

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
        if let Some((_, which)) = NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            let slot = field(&mut found, *which);
            if slot.is_empty() {
                *slot = cut(decoded(value).trim(), VALUE_BYTES).to_owned();
                any |= !slot.is_empty();
            }
        } else if found.click_id.is_empty()
            && let Some((_, network)) = click_id(name).filter(|(_, network)| !network.is_empty())
        {
            found.click_id = cut(&decoded(value), VALUE_BYTES).to_owned();
            (*network).clone_into(&mut found.click_network);
            any = true;
        }
    }
    any.then_some(found)
}

fn click_id(name: &str) -> Option<&'static (&'static str, &'static str)> {
    CLICK_IDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// Whether a parameter only tells where a visit came from, so that two addresses that differ in it
/// are one page.
pub fn is_tracking(parameter: &str) -> bool {
    let known = |name: &&str| name.eq_ignore_ascii_case(parameter);
    NAMED.iter().any(|(name, _)| known(name))
        || (click_id(parameter).is_some() && !parameter.eq_ignore_ascii_case("clickid"))
        || ALSO_TRACKING.iter().any(known)
}

/// Whether an advertisement was clicked: an advertiser's click id, or a medium that is paid.
pub(super) fn is_paid(page: &PageAddress<'_>) -> bool {
    page.parameters().filter(|(_, value)| value.len() > 1).any(|(name, value)| {
        let clicked = click_id(name).is_some_and(|(known, network)| !network.is_empty() && !UNPAID.contains(known));
        let medium = || ["utm_medium", "mtm_medium", "hmmd"].iter().any(|known| known.eq_ignore_ascii_case(name));
        clicked || (medium() && is_paid_medium(&decoded(value)))
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
