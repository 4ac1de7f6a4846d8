use rapport_proto::events::Referrer;

use super::{
    campaign::is_paid,
    context::cut,
    page_address::{PageAddress, decoded, is_within},
    sources,
};

/// Where the visit came from: the medium, its source's name, and what was searched for.
///
/// `internal` when the referrer is on the page's own host, or on one of `internal_hosts`; `paid`
/// when the page's address carries an advertiser's click id or a paid medium; else what the curated
/// list says of the host, and `other` with the host itself for everything else. `None` without a
/// referrer, and when it is no address.
pub fn referrer(page_url: &str, referrer: &str, internal_hosts: &[String]) -> Option<Referrer> {
    if referrer.is_empty() {
        return None;
    }
    let from = PageAddress::parse(referrer)?;
    let page = PageAddress::parse(page_url);
    let own = page.is_some_and(|page| same_site(page.host, from.host));
    if own || internal_hosts.iter().any(|host| is_within(from.host, host)) {
        return Some(Referrer { medium: "internal".to_owned(), source: source_host(from.host), term: String::new() });
    }
    let known = sources::of_host(from.host);
    let medium = match known {
        _ if page.is_some_and(|page| is_paid(&page)) => "paid",
        Some(source) => source.medium,
        None => "other",
    };
    let term = known.map_or_else(String::new, |source| {
        let found = from.parameters().find(|(name, value)| value.len() > 1 && source.terms.contains(name));
        found.map_or_else(String::new, |(_, value)| cut(decoded(value).trim(), TERM_BYTES).to_owned())
    });
    let source = known.map_or_else(|| source_host(from.host), |source| source.name.to_owned());
    Some(Referrer { medium: medium.to_owned(), source, term })
}

/// What a person types into a search box; longer ones are pasted.
const TERM_BYTES: usize = 256;

fn source_host(host: &str) -> String {
    cut(without_www(host), 253).to_ascii_lowercase()
}

fn without_www(host: &str) -> &str {
    match host.get(..4) {
        Some(www) if www.eq_ignore_ascii_case("www.") => &host[4..],
        _ => host,
    }
}

/// One is the other or below it, not counting `www.`. A single label is nobody's site.
fn same_site(one: &str, other: &str) -> bool {
    let (one, other) = (without_www(one), without_www(other));
    one.eq_ignore_ascii_case(other)
        || (one.contains('.') && is_within(other, one))
        || (other.contains('.') && is_within(one, other))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: &str = "https://www.shop.example/p/1";

    fn told(page: &str, from: &str) -> (String, String, String) {
        let found = referrer(page, from, &["pay.example".to_owned()]).unwrap_or_default();
        (found.medium, found.source, found.term)
    }

    fn row(medium: &str, source: &str, term: &str) -> (String, String, String) {
        (medium.into(), source.into(), term.into())
    }

    #[test]
    fn where_visits_come_from() {
        for (from, medium, source, term) in [
            ("https://www.google.com/", "search", "Google", ""),
            ("https://www.google.co.uk/search?q=blue+shoes", "search", "Google", "blue shoes"),
            ("https://www.baidu.com/s?ie=utf-8&wd=%E9%9E%8B%E5%AD%90", "search", "Baidu", "鞋子"),
            ("https://m.sogou.com/web?query=a", "search", "Sogou", "a"),
            ("https://www.so.com/s?q=x%26y", "search", "360 Search", "x&y"),
            ("https://mp.weixin.qq.com/s/abc", "social", "WeChat", ""),
            ("https://m.weibo.cn/detail/1", "social", "Weibo", ""),
            ("https://www.zhihu.com/question/1", "social", "Zhihu", ""),
            ("https://www.douyin.com/", "social", "Douyin", ""),
            ("https://www.xiaohongshu.com/explore", "social", "Xiaohongshu", ""),
            ("https://l.facebook.com/", "social", "Facebook", ""),
            ("https://t.co/x", "social", "X", ""),
            ("android-app://com.google.android.gm/", "email", "Gmail", ""),
            ("https://mail.google.com/mail/u/0/", "email", "Gmail", ""),
            ("https://chatgpt.com/", "ai", "ChatGPT", ""),
            ("https://www.doubao.com/chat/", "ai", "Doubao", ""),
            ("https://chat.deepseek.com/", "ai", "DeepSeek", ""),
            ("https://shop.example/cart", "internal", "shop.example", ""),
            ("https://blog.shop.example/", "internal", "blog.shop.example", ""),
            ("https://checkout.pay.example/", "internal", "checkout.pay.example", ""),
            ("https://News.Example.org/a", "other", "news.example.org", ""),
            ("http://localhost:3000/", "other", "localhost", ""),
        ] {
            assert_eq!(told(PAGE, from), row(medium, source, term), "{from}");
        }
    }

    #[test]
    fn an_advertisement_is_paid_whatever_site_it_stood_on() {
        assert_eq!(told("https://shop.example/?gclid=x1", "https://www.google.com/"), row("paid", "Google", ""));
        assert_eq!(told("https://shop.example/?utm_medium=CPC", "https://t.co/x"), row("paid", "X", ""));
        assert_eq!(told("https://shop.example/?utm_medium=email", "https://t.co/x"), row("social", "X", ""));
        assert_eq!(told("https://shop.example/?gclid=x1", "https://shop.example/a").0, "internal");
    }

    #[test]
    fn no_referrer_and_no_address_say_nothing() {
        assert_eq!(referrer(PAGE, "", &[]), None);
        assert_eq!(referrer(PAGE, "(direct)", &[]), None);
    }

    proptest! {
        #[test]
        fn every_text_gives_a_bounded_answer(page in "\\PC{0,80}", from in "(https?://)?\\PC{0,400}") {
            if let Some(found) = referrer(&page, &from, &[]) {
                prop_assert!(!found.medium.is_empty() && found.source.len() <= 253 && found.term.len() <= TERM_BYTES);
            }
        }
    }
}
