//! What a user agent says: browser, system, device, and whether it is a crawler's.
//!
//! Known browsers come from the crate woothee, crawlers from the crate isbot; both are asked once
//! per user agent and remembered by the thread.

use std::{cell::RefCell, num::NonZeroUsize, rc::Rc, sync::LazyLock};

use lru::LruCache;
use rapport_proto::events::Client;
use woothee::parser::{Parser, WootheeResult};

/// The client that a user agent names; `None` when it is empty, or a program's that sends for
/// somebody (an SDK on a server): that says nothing of the customer.
pub fn client(user_agent: &str) -> Option<Client> {
    if user_agent.is_empty() { None } else { known(user_agent).client.clone() }
}

/// Whether it is a crawler, a monitor or a browser without a person. A program that sends events
/// for others (`analytics-python`, `okhttp`, `curl`) is not: how else would a server report a
/// purchase?
pub fn is_bot(user_agent: &str) -> bool {
    !user_agent.is_empty() && known(user_agent).bot
}

#[derive(Debug, Default)]
struct Known {
    client: Option<Client>,
    bot: bool,
}

/// Half a kilobyte each: 2 MiB a thread at most.
const REMEMBERED: usize = 4_096;

thread_local! {
    static SEEN: RefCell<LruCache<Box<str>, Rc<Known>>> =
        RefCell::new(LruCache::new(NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN)));
}

fn known(user_agent: &str) -> Rc<Known> {
    SEEN.with_borrow_mut(|seen| {
        if let Some(known) = seen.get(user_agent) {
            return Rc::clone(known);
        }
        let known = Rc::new(read(user_agent));
        seen.put(user_agent.into(), Rc::clone(&known));
        known
    })
}

fn read(user_agent: &str) -> Known {
    if sends_for_others(user_agent) {
        return Known::default();
    }
    let parsed = Parser::new().parse(user_agent).unwrap_or_default();
    let bot = CRAWLERS.is_bot(user_agent) || parsed.category == "crawler";
    Known { client: Some(as_client(user_agent, &parsed, bot)), bot }
}

/// isbot's list, without the entries that are people's apps, with crawlers that came after it.
static CRAWLERS: LazyLock<isbot::Bots> = LazyLock::new(|| {
    let mut bots = isbot::Bots::default();
    bots.remove(&[
        "okhttp",
        "sogou",
        "qqdownload",
        "tiny",
        "disqus",
        "^duckduckgo",
        "^ddg_android",
        "^snapchat",
        "^spotify/",
        "^unityplayer",
        "^viber$",
        "^javascript",
    ]);
    bots.append(&[
        r"sogou .*spider",
        r"chatgpt-user",
        r"claude-(user|web|searchbot)",
        r"anthropic-ai",
        r"cohere-ai",
        r"perplexity-user",
        r"meta-external(agent|fetcher)",
        r"headlesschrome",
        r"puppeteer|playwright|selenium|webdriver|cypress/",
        r"lighthouse",
    ]);
    bots
});

/// How user agents of programs begin that report what others did, in lower case.
const SENDERS: &[&str] = &[
    "analytics-",
    "analytics/",
    "analytics.",
    "segment",
    "rudder",
    "posthog",
    "snowplow",
    "rapport",
    "okhttp",
    "python-requests",
    "python-urllib",
    "python-httpx",
    "python/",
    "aiohttp",
    "go-http-client",
    "axios",
    "node",
    "undici",
    "java/",
    "java-http-client",
    "apache-httpclient",
    "ktor",
    "dart/",
    "curl/",
    "wget/",
    "guzzlehttp",
    "php",
    "ruby",
    "faraday",
    "reqwest",
    "ureq",
    "dotnet",
    "grpc-",
    "postmanruntime",
    "vector/",
    "fluent-bit",
    "kcat",
    "openapi-generator",
    "cloudevents",
];

fn sends_for_others(user_agent: &str) -> bool {
    SENDERS.iter().any(|prefix| user_agent.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// Browsers inside apps, mostly of China, that carry another browser's name too: the token, and
/// what people call it.
const EMBEDDED: &[(&str, &str)] = &[
    ("MicroMessenger/", "WeChat"),
    ("AlipayClient/", "Alipay"),
    ("DingTalk/", "DingTalk"),
    ("Weibo (", "Weibo"),
    ("aweme/", "Douyin"),
    ("aweme_", "Douyin"),
    ("BytedanceWebview/", "Douyin"),
    ("xiaohongshu", "Xiaohongshu"),
    ("baiduboxapp/", "Baidu"),
    ("MQQBrowser/", "QQ Browser"),
    ("QQBrowser/", "QQ Browser"),
    ("UCBrowser/", "UC Browser"),
    ("UBrowser/", "UC Browser"),
    ("MiuiBrowser/", "MIUI Browser"),
    ("HuaweiBrowser/", "Huawei Browser"),
    ("VivoBrowser/", "Vivo Browser"),
    ("HeyTapBrowser/", "HeyTap Browser"),
    ("SogouMobileBrowser/", "Sogou"),
    (" MetaSr ", "Sogou"),
    ("QHBrowser/", "360"),
    ("360SE", "360"),
    ("FBAN/", "Facebook"),
    ("FBAV/", "Facebook"),
    ("Instagram ", "Instagram"),
    ("musical_ly", "TikTok"),
    ("DuckDuckGo/", "DuckDuckGo"),
    ("OPR/", "Opera"),
];

fn as_client(user_agent: &str, parsed: &WootheeResult<'_>, bot: bool) -> Client {
    let embedded = EMBEDDED.iter().find(|(token, _)| user_agent.contains(token));
    let (browser, browser_version) = match embedded {
        Some((token, name)) => ((*name).to_owned(), version_after(user_agent, token)),
        None => (said(parsed.name), said(parsed.version)),
    };
    Client {
        browser,
        browser_version,
        os: os(parsed.os).to_owned(),
        device: device(user_agent, parsed, bot).to_owned(),
    }
}

/// woothee's word for what it does not know.
fn said(text: &str) -> String {
    if text == "UNKNOWN" { String::new() } else { text.to_owned() }
}

fn version_after(user_agent: &str, token: &str) -> String {
    let Some((_, rest)) = user_agent.split_once(token) else { return String::new() };
    rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(32).collect()
}

/// One name for each system; woothee tells every Windows apart.
fn os(name: &str) -> &str {
    match name {
        "UNKNOWN" => "",
        "Mac OSX" | "Mac OS Classic" => "macOS",
        "iPhone" | "iPad" | "iPod" => "iOS",
        name if name.starts_with("Windows") => "Windows",
        name => name,
    }
}

fn device(user_agent: &str, parsed: &WootheeResult<'_>, bot: bool) -> &'static str {
    let has = |token| user_agent.contains(token);
    if bot {
        "bot"
    } else if has("SmartTV") || has("SMART-TV") || has("Android TV") || has("AppleTV") || has("Web0S") || has("CrKey") {
        "tv"
    } else if has("iPad") || has("Tablet") || (has("Android") && !has("Mobile")) {
        "tablet"
    } else {
        match parsed.category {
            "pc" => "desktop",
            "smartphone" | "mobilephone" => "mobile",
            _ => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(user_agent: &str) -> (String, String, String) {
        let client = client(user_agent).unwrap_or_default();
        (client.browser, client.os, client.device)
    }

    /// browser, system, device
    const CLIENTS: &[(&str, &str, &str, &str)] = &[
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "Chrome",
            "Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.56",
            "Edge",
            "Windows",
            "desktop",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
            "Safari",
            "macOS",
            "desktop",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Firefox", "Linux", "desktop"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari",
            "iOS",
            "mobile",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
            "Safari",
            "iOS",
            "tablet",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
            "SamsungBrowser",
            "Android",
            "mobile",
        ),
        (
            "Mozilla/5.0 (Linux; Android 13; SM-X200) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "Chrome",
            "Android",
            "tablet",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2a) NetType/WIFI Language/zh_CN",
            "WeChat",
            "iOS",
            "mobile",
        ),
        (
            "Mozilla/5.0 (Linux; U; Android 12; zh-CN; M2102K1C) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.58 UCBrowser/15.5.2.1206 Mobile Safari/537.36",
            "UC Browser",
            "Android",
            "mobile",
        ),
        (
            "Mozilla/5.0 (Linux; Android 9; SMART-TV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/90.0.4430.210 Safari/537.36",
            "Chrome",
            "Android",
            "tv",
        ),
    ];

    #[test]
    fn common_clients_are_named() {
        for (agent, browser, os, device) in CLIENTS {
            assert_eq!(seen(agent), ((*browser).into(), (*os).into(), (*device).into()), "{agent}");
            assert!(!is_bot(agent), "{agent}");
        }
    }

    #[test]
    fn an_apps_browser_has_the_apps_version() {
        let agent = CLIENTS.iter().find(|c| c.1 == "WeChat").unwrap().0;
        assert_eq!(client(agent).unwrap().browser_version, "8.0.42");
    }

    #[test]
    fn crawlers_and_browsers_without_a_person_are_bots() {
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
            "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
            "Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)",
            "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Mobile Safari/537.36 (compatible; Bytespider; spider-feedback@bytedance.com)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
            "facebookexternalhit/1.1",
        ] {
            assert!(is_bot(agent), "{agent}");
            assert_eq!(seen(agent).2, "bot", "{agent}");
        }
    }

    #[test]
    fn a_server_that_reports_a_purchase_is_no_bot_and_no_browser() {
        for agent in
            ["analytics-python/2.3.2", "okhttp/4.12.0", "python-requests/2.32.3", "curl/8.5.0", "axios/1.7", ""]
        {
            assert!(!is_bot(agent) && client(agent).is_none(), "{agent}");
        }
    }

    #[test]
    fn what_a_thread_remembers_is_bounded() {
        for i in 0..REMEMBERED + 10 {
            is_bot(&format!("made-up/{i}"));
        }
        SEEN.with_borrow(|seen| assert_eq!(seen.len(), REMEMBERED));
    }
}
