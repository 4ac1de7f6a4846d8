//! Sites that people come from. Curated: the ones that send visits to shops in numbers, of Europe,
//! America and China. A domain covers its subdomains; `*` at its end any public suffix.

use std::{collections::HashMap, sync::LazyLock};

pub(super) struct Source {
    domains: &'static [&'static str],
    pub(super) medium: &'static str,
    pub(super) name: &'static str,
    /// The parameters that hold what was searched for.
    pub(super) terms: &'static [&'static str],
}

const fn site(domains: &'static [&'static str], medium: &'static str, name: &'static str) -> Source {
    Source { domains, medium, name, terms: &[] }
}

const fn search(domains: &'static [&'static str], name: &'static str, terms: &'static [&'static str]) -> Source {
    Source { domains, medium: "search", name, terms }
}

/// The entry with the longest domain that holds a host wins: mail.google.com before google.
#[rustfmt::skip]
const SOURCES: &[Source] = &[
    site(&["mail.google.com", "com.google.android.gm"], "email", "Gmail"),
    site(&["mail.yahoo.*", "mail.yahoo.co.jp"], "email", "Yahoo! Mail"),
    site(&["outlook.live.com", "outlook.office.com", "outlook.office365.com", "mail.live.com"], "email", "Outlook"),
    site(&["mail.qq.com", "wx.mail.qq.com", "exmail.qq.com"], "email", "QQ Mail"),
    site(&["mail.163.com", "mail.126.com", "mail.yeah.net"], "email", "NetEase Mail"),
    site(&["mail.sina.com.cn", "mail.sina.cn"], "email", "Sina Mail"),
    site(&["mail.aliyun.com", "qiye.aliyun.com"], "email", "Aliyun Mail"),
    site(&["mail.aol.com"], "email", "AOL Mail"),
    site(&["mail.proton.me", "mail.protonmail.com"], "email", "Proton Mail"),
    site(&["icloud.com"], "email", "iCloud Mail"),
    site(&["webmail.gmx.*", "gmx.net", "navigator.gmx.net"], "email", "GMX"),
    site(&["web.de"], "email", "Web.de"),
    site(&["e.mail.ru"], "email", "Mail.ru"),
    site(&["mail.yandex.*"], "email", "Yandex Mail"),

    site(&["chatgpt.com", "chat.openai.com", "openai.com"], "ai", "ChatGPT"),
    site(&["gemini.google.com", "bard.google.com"], "ai", "Gemini"),
    site(&["claude.ai", "claude.com"], "ai", "Claude"),
    site(&["perplexity.ai"], "ai", "Perplexity"),
    site(&["copilot.microsoft.com", "copilot.com"], "ai", "Copilot"),
    site(&["meta.ai"], "ai", "Meta AI"),
    site(&["grok.com", "x.ai"], "ai", "Grok"),
    site(&["chat.mistral.ai"], "ai", "Le Chat"),
    site(&["you.com"], "ai", "You.com"),
    site(&["phind.com"], "ai", "Phind"),
    site(&["deepseek.com"], "ai", "DeepSeek"),
    site(&["kimi.com", "kimi.moonshot.cn", "kimi.ai"], "ai", "Kimi"),
    site(&["doubao.com"], "ai", "Doubao"),
    site(&["yuanbao.tencent.com"], "ai", "Yuanbao"),
    site(&["tongyi.aliyun.com", "tongyi.com", "qianwen.com", "chat.qwen.ai"], "ai", "Qwen"),
    site(&["yiyan.baidu.com", "wenxin.baidu.com", "chat.baidu.com"], "ai", "Ernie"),
    site(&["chatglm.cn", "chat.z.ai"], "ai", "ChatGLM"),
    site(&["metaso.cn"], "ai", "Metaso"),

    site(&["tieba.baidu.com"], "social", "Baidu Tieba"),
    search(&["baidu.com", "com.baidu.searchbox"], "Baidu", &["wd", "word", "kw"]),
    site(&["weixin.sogou.com"], "search", "Sogou"),
    search(&["sogou.com"], "Sogou", &["query", "keyword"]),
    search(&["so.com", "haosou.com"], "360 Search", &["q"]),
    search(&["sm.cn"], "Shenma", &["q"]),
    search(&["toutiao.com", "so.toutiao.com"], "Toutiao", &["keyword"]),
    search(&["bing.com"], "Bing", &["q"]),
    search(&["google.*", "com.google.android.googlequicksearchbox"], "Google", &["q"]),
    search(&["search.yahoo.*", "yahoo.com", "search.yahoo.co.jp"], "Yahoo!", &["p", "q"]),
    search(&["duckduckgo.com"], "DuckDuckGo", &["q"]),
    search(&["ya.ru", "yandex.*"], "Yandex", &["text"]),
    search(&["search.naver.com", "naver.com"], "Naver", &["query"]),
    search(&["search.daum.net", "daum.net"], "Daum", &["q"]),
    search(&["ecosia.org"], "Ecosia", &["q"]),
    search(&["qwant.com"], "Qwant", &["q"]),
    search(&["startpage.com"], "Startpage", &["query"]),
    search(&["search.brave.com"], "Brave", &["q"]),
    search(&["kagi.com"], "Kagi", &["q"]),
    search(&["seznam.cz", "search.seznam.cz"], "Seznam", &["q"]),
    search(&["coccoc.com"], "Cốc Cốc", &["query"]),
    search(&["search.aol.com", "aol.com"], "AOL", &["q"]),
    search(&["ask.com"], "Ask", &["q"]),
    search(&["petalsearch.com"], "Petal", &["query"]),

    site(&["weixin.qq.com", "wechat.com", "servicewechat.com", "com.tencent.mm"], "social", "WeChat"),
    site(&["qzone.qq.com", "com.tencent.mobileqq"], "social", "QQ"),
    site(&["weibo.com", "weibo.cn", "t.cn"], "social", "Weibo"),
    site(&["zhihu.com"], "social", "Zhihu"),
    site(&["douyin.com", "iesdouyin.com"], "social", "Douyin"),
    site(&["xiaohongshu.com", "xhslink.com"], "social", "Xiaohongshu"),
    site(&["bilibili.com", "b23.tv"], "social", "Bilibili"),
    site(&["kuaishou.com"], "social", "Kuaishou"),
    site(&["douban.com"], "social", "Douban"),
    site(&["tiktok.com"], "social", "TikTok"),
    site(&["facebook.com", "fb.com", "fb.me", "messenger.com", "com.facebook.katana"], "social", "Facebook"),
    site(&["instagram.com", "com.instagram.android"], "social", "Instagram"),
    site(&["threads.net", "threads.com"], "social", "Threads"),
    site(&["twitter.com", "x.com", "t.co", "com.twitter.android"], "social", "X"),
    site(&["linkedin.com", "lnkd.in", "com.linkedin.android"], "social", "LinkedIn"),
    site(&["pinterest.*", "pin.it"], "social", "Pinterest"),
    site(&["reddit.com", "redd.it", "com.reddit.frontpage"], "social", "Reddit"),
    site(&["youtube.com", "youtu.be"], "social", "YouTube"),
    site(&["snapchat.com"], "social", "Snapchat"),
    site(&["whatsapp.com", "wa.me"], "social", "WhatsApp"),
    site(&["telegram.org", "telegram.me", "t.me", "org.telegram.messenger"], "social", "Telegram"),
    site(&["discord.com"], "social", "Discord"),
    site(&["slack.com"], "social", "Slack"),
    site(&["tumblr.com"], "social", "Tumblr"),
    site(&["quora.com"], "social", "Quora"),
    site(&["medium.com"], "social", "Medium"),
    site(&["news.ycombinator.com"], "social", "Hacker News"),
    site(&["bsky.app"], "social", "Bluesky"),
    site(&["mastodon.social"], "social", "Mastodon"),
    site(&["vk.com", "vk.ru"], "social", "VK"),
    site(&["ok.ru"], "social", "OK"),
    site(&["line.me"], "social", "LINE"),
    site(&["kakao.com"], "social", "Kakao"),
    site(&["xing.com"], "social", "XING"),
];

/// The site that a host belongs to.
pub(super) fn of_host(host: &str) -> Option<&'static Source> {
    let host = host.to_ascii_lowercase();
    // From the whole host to its last two labels: the most particular entry counts.
    std::iter::successors(Some(host.as_str()), |rest| rest.split_once('.').map(|(_, parent)| parent)).find_map(
        |domain| {
            let place = BY_DOMAIN.get(domain).or_else(|| BY_NAME.get(without_public_suffix(domain)?))?;
            SOURCES.get(*place)
        },
    )
}

/// The public suffix is one label, or two short ones (co.uk, com.br).
fn without_public_suffix(domain: &str) -> Option<&str> {
    let (name, last) = domain.rsplit_once('.')?;
    match name.rsplit_once('.') {
        Some((name, second)) if second.len() <= 3 && last.len() == 2 => Some(name),
        _ => Some(name),
    }
}

static BY_DOMAIN: LazyLock<HashMap<&str, usize>> =
    LazyLock::new(|| places(|domain| (!domain.ends_with(".*")).then_some(domain)));
/// Of entries for any public suffix.
static BY_NAME: LazyLock<HashMap<&str, usize>> = LazyLock::new(|| places(|domain| domain.strip_suffix(".*")));

fn places(key: impl Fn(&'static str) -> Option<&'static str>) -> HashMap<&'static str, usize> {
    let all = SOURCES.iter().enumerate();
    all.flat_map(|(place, source)| source.domains.iter().map(move |domain| (*domain, place)))
        .filter_map(|(domain, place)| Some((key(domain)?, place)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_domain_leads_to_its_own_entry() {
        for source in SOURCES {
            for domain in source.domains {
                let host = domain.replace('*', "co.uk");
                assert_eq!(of_host(&host).map(|s| s.name), Some(source.name), "{host}");
            }
        }
    }

    #[test]
    fn a_public_suffix_is_not_a_name() {
        assert_eq!(of_host("www.google.de").map(|s| s.name), Some("Google"));
        assert_eq!(of_host("google.com.br").map(|s| s.name), Some("Google"));
        assert!(of_host("google.evil.example").is_none());
        assert!(of_host("notgoogle.com").is_none());
        assert!(of_host("localhost").is_none());
    }
}
