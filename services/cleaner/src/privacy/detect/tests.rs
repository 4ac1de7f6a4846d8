use proptest::prelude::*;

use super::*;

fn seen(text: &str) -> Vec<(Kind, &str)> {
    find(text).into_iter().map(|one| (one.kind, &text[one.range])).collect()
}

/// The only match in a text, and its spelling.
fn only(text: &str) -> (Kind, String, String) {
    let found = find(text);
    assert_eq!(found.len(), 1, "{text:?} has {found:?}");
    (found[0].kind, text[found[0].range.clone()].to_owned(), found[0].canonical.clone())
}

/// 17 digits with their check character, from the standard's table.
fn resident_id(first: &str) -> String {
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = first.chars().zip(weights).map(|(d, w)| d.to_digit(10).unwrap() * w).sum();
    format!("{first}{}", ['1', '0', 'X', '9', '8', '7', '6', '5', '4', '3', '2'][(sum % 11) as usize])
}

/// Digits with Luhn's check digit, computed from the left here.
fn with_luhn(first: &str) -> String {
    let sum: u32 = first
        .chars()
        .rev()
        .enumerate()
        .map(|(i, c)| {
            let n = c.to_digit(10).unwrap();
            if i % 2 == 0 { n * 2 / 10 + n * 2 % 10 } else { n }
        })
        .sum();
    format!("{first}{}", (10 - sum % 10) % 10)
}

#[test]
fn what_is_personal_is_found_in_english_and_chinese_sentences() {
    use Kind::*;
    let id = resident_id("44010619850712301");
    for (sentence, kind, part) in [
        ("Please write to Ann.Lee+shop@mail.example.co.uk, thanks", Email, "Ann.Lee+shop@mail.example.co.uk"),
        ("请发邮件到ann_lee@example.com谢谢", Email, "ann_lee@example.com"),
        ("<ann@example.com>", Email, "ann@example.com"),
        ("/login?email=ann%40example.com&x=1", Email, "ann%40example.com"),
        ("mailto:ann@example.com.", Email, "ann@example.com"),
        ("o'brien@example.ie", Email, "o'brien@example.ie"),
        ("用户@例子.公司", Email, "用户@例子.公司"),
        ("call +49 151 234 56789 now", Phone, "+49 151 234 56789"),
        ("tel:+1 (415) 555-0100", Phone, "+1 (415) 555-0100"),
        ("电话+442071838750。", Phone, "+442071838750"),
        ("我的手机号是13812345678，请联系我", ChineseMobile, "13812345678"),
        ("手机：138-1234-5678", ChineseMobile, "138-1234-5678"),
        ("拨打138 1234 5678即可", ChineseMobile, "138 1234 5678"),
        ("+86 138 1234 5678 是我的", ChineseMobile, "+86 138 1234 5678"),
        ("call 0086-13812345678", ChineseMobile, "0086-13812345678"),
        ("call 8613812345678", ChineseMobile, "8613812345678"),
        ("手机１３８１２３４５６７８（微信同号）", ChineseMobile, "１３８１２３４５６７８"),
        (&format!("身份证{id}号"), ChineseResidentId, &id),
        ("my id is 110105 19491231 002X", ChineseResidentId, "110105 19491231 002X"),
        ("card 4111 1111 1111 1111 exp 12/27", Card, "4111 1111 1111 1111"),
        ("卡号5555555555554444。", Card, "5555555555554444"),
        ("3782-822463-10005", Card, "3782-822463-10005"),
        ("IBAN: DE89 3704 0044 0532 0130 00.", Iban, "DE89 3704 0044 0532 0130 00"),
        ("pay to GB29NWBK60161331926819", Iban, "GB29NWBK60161331926819"),
        ("from 203.0.113.77:443", Ip, "203.0.113.77"),
        ("http://203.0.113.77/x", Ip, "203.0.113.77"),
        ("来自203.0.113.77的请求", Ip, "203.0.113.77"),
        ("peer [2001:db8:85a3::8a2e:370:7334]:80", Ip, "2001:db8:85a3::8a2e:370:7334"),
        ("ip=::ffff:203.0.113.77", Ip, "::ffff:203.0.113.77"),
    ] {
        assert_eq!(seen(sentence), [(kind, part)], "{sentence}");
    }
}

#[test]
fn one_number_has_one_spelling_however_it_was_written() {
    for text in [
        "13812345678",
        "138 1234 5678",
        "+86 138-1234-5678",
        "0086 13812345678",
        "86 138 1234 5678",
        "１３８-１２３４-５６７８",
    ] {
        assert_eq!(only(text).2, "+8613812345678", "{text}");
    }
    assert_eq!(only("4111-1111-1111-1111").2, "4111111111111111");
    assert_eq!(only("+49 (151) 234-5678").2, "+491512345678");
    assert_eq!(only("11010519491231002x").2, "11010519491231002X");
    assert_eq!(only("::ffff:203.0.113.77").2, "203.0.113.77");
}

#[test]
fn several_in_one_text_are_all_found_in_order() {
    use Kind::*;
    let text = "张三13812345678，李四ann@example.com，卡4111111111111111，IP 10.1.2.3";
    assert_eq!(seen(text).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(), [ChineseMobile, Email, Card, Ip]);
    assert_eq!(seen("13812345678,13912345678 15012345678").len(), 3);
    assert_eq!(seen("13812345678@qq.com"), [(Email, "13812345678@qq.com")]);
    assert_eq!(seen("a@b.cd b@c.de").len(), 2);
    assert_eq!(seen("2024-11-24 4111 1111 1111 1111"), [(Card, "4111 1111 1111 1111")]);
    let groups = "12 ".repeat(30) + "4111 1111 1111 1111";
    assert_eq!(seen(&groups), [(Card, "4111 1111 1111 1111")]);
}

#[test]
fn numbers_of_things_stay() {
    for text in [
        "42",
        "1700000000",
        "1700000000000",
        "1700000000000000000",
        "20241124160000",
        "2024-11-24T16:00:00.250Z",
        "2024-11-24 16:00:00",
        "16:00:00",
        "550e8400-e29b-41d4-a716-446655440000",
        "01234567-8901-4345-8789-012345678901",
        "order 2024112400001234",
        "A-2024-0001-77",
        "4006381333931",
        "978-3-16-148410-0",
        "SKU-13812345678",
        "sku_13812345678",
        "x13812345678y",
        "0.13812345678",
        "13812345678.55",
        "12812345678",
        "4111111111111112",
        "110105194912310021",
        "1.2.3",
        "v1.2.3.4",
        "version 10.0.19.45",
        "Chrome/120.0.0.0 Safari/537.36",
        "lib-1.2.3.4",
        "256.1.1.1",
        "00:1a:2b:3c:4d:5e",
        "std::vec::Vec1",
        "10:30",
        "logo@2x.png",
        "lodash@4.17.21",
        "a@b",
        "@ann",
        "+1000000000",
        "C++11 2014",
        "1+12345678",
        "-33.8688197, 151.2092955",
        "DE89370400440532013001",
        "RR123456785CN",
        "$1,299.00 + 12345678 = x",
        "https://shop.example/p/13812345678?ref=home",
        "hk1_0123456789abcdef0123456789abcdef",
        "****1111",
        "订单号：20241124123456789012",
        "价格￥１２９９，库存２０",
        "d41d8cd98f00b204e9800998ecf8427e",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36",
    ] {
        assert_eq!(seen(text), [], "{text}");
    }
}

#[test]
fn known_cards_of_every_network_are_found_and_one_wrong_digit_is_not() {
    for first in [
        "411111111111111",
        "400000000000000000",
        "510510510510510",
        "222300004841001",
        "37144963539843",
        "3622720627166",
        "353011133330000",
        "62220212345678901",
        "601111111111111",
        "220012345678901",
    ] {
        let card = with_luhn(first);
        assert_eq!(only(&card).0, Kind::Card, "{card}");
        let last = card.as_bytes()[card.len() - 1] - b'0';
        let wrong = format!("{first}{}", (last + 1) % 10);
        assert_eq!(seen(&wrong), [], "{wrong}");
    }
}

/// A search that looks at a byte more than a few times would not come back from these.
#[test]
fn what_stands_behind_a_long_text_of_beginnings_is_found() {
    for pattern in ["1 ", "4111 ", "12-", "+1", "a@", "%40", "1.", "1:", "DE89 ", "１", "a@b.", "::1"] {
        let text = pattern.repeat(400_000 / pattern.len()) + "; ann@example.com";
        let last = find(&text).pop().unwrap();
        assert_eq!((last.kind, &text[last.range]), (Kind::Email, "ann@example.com"), "{pattern}");
    }
}

proptest! {
    #[test]
    fn every_resident_id_is_found_among_chinese_characters(
        place in "(11|31|44|65)[0-9]{4}", year in 1900u32..2100, month in 1u32..=12, day in 1u32..=28, order in "[0-9]{3}",
        before in "[\u{4e00}-\u{4fff}]{0,6}", after in "[\u{4e00}-\u{4fff}]{0,6}",
    ) {
        let id = resident_id(&format!("{place}{year}{month:02}{day:02}{order}"));
        let text = format!("{before}{id}{after}");
        prop_assert_eq!(seen(&text), [(Kind::ChineseResidentId, id.as_str())]);
    }

    #[test]
    fn every_card_is_found_in_fours(first in "(4[0-9]{14}|5[1-5][0-9]{13})") {
        let card = with_luhn(&first);
        let spaced = format!("{} {} {} {}", &card[..4], &card[4..8], &card[8..12], &card[12..]);
        prop_assert_eq!(only(&spaced).2, card);
    }

    #[test]
    fn every_mobile_number_is_found_in_every_spelling(
        number in "1[3-9][0-9]{9}", prefix in "(|\\+86|\\+86 |0086 |86-)", separator in "[- ]?",
        around in "[\u{4e00}-\u{4fff}，。：]{0,4}",
    ) {
        let text = format!("{around}{prefix}{}{separator}{}{separator}{}{around}", &number[..3], &number[3..7], &number[7..]);
        let (kind, part, canonical) = only(&text);
        prop_assert_eq!((kind, canonical), (Kind::ChineseMobile, format!("+86{number}")));
        prop_assert!(!text.replace(&part, "").contains(|c: char| c.is_ascii_digit()), "{} leaves digits of {}", part, text);
    }

    #[test]
    fn matches_lie_in_the_text_in_order_and_apart(text in "([0-9+@.: %_xX/-]|13812345678|a@b\\.cd|１|张|DE89|4111 1111 1111 1111|203\\.0\\.113\\.7){0,40}") {
        let mut end = 0;
        for one in find(&text) {
            prop_assert!(one.range.start >= end && one.range.start < one.range.end, "{:?} in {}", one, text);
            prop_assert!(text.get(one.range.clone()).is_some(), "between two characters");
            end = one.range.end;
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        find(&text);
        find(&String::from_utf8_lossy(&bytes));
    }
}
