//! What a field's name says of its value.

/// Names of fields that hold a direct identifier, lower case and without separators.
const PERSONAL: &[&str] = &[
    "address",
    "bankaccount",
    "birthdate",
    "birthday",
    "cardnumber",
    "cellphone",
    "creditcard",
    "creditcardnumber",
    "dateofbirth",
    "dob",
    "driverslicense",
    "email",
    "emailaddress",
    "familyname",
    "fax",
    "firstname",
    "fullname",
    "givenname",
    "homeaddress",
    "iban",
    "idcard",
    "idcardnumber",
    "idnumber",
    "ip",
    "ipaddr",
    "ipaddress",
    "lastname",
    "licenseplate",
    "mail",
    "mobile",
    "mobileno",
    "mobilenumber",
    "mobilephone",
    "nationalid",
    "passport",
    "passportnumber",
    "phone",
    "phoneno",
    "phonenumber",
    "realname",
    "remoteaddr",
    "residentid",
    "socialsecuritynumber",
    "ssn",
    "street",
    "streetaddress",
    "surname",
    "taxid",
    "taxnumber",
    "telephone",
    "username",
    "wechatid",
];

/// The same in Chinese.
const PERSONAL_CHINESE: &[&str] = &[
    "姓名",
    "真实姓名",
    "名字",
    "用户名",
    "收件人",
    "收货人",
    "联系人",
    "手机",
    "手机号",
    "手机号码",
    "电话",
    "电话号码",
    "联系电话",
    "联系方式",
    "邮箱",
    "电子邮箱",
    "邮件地址",
    "地址",
    "住址",
    "收货地址",
    "家庭住址",
    "身份证",
    "身份证号",
    "身份证号码",
    "证件号",
    "证件号码",
    "护照",
    "护照号",
    "银行卡",
    "银行卡号",
    "微信",
    "微信号",
    "出生日期",
    "生日",
    "车牌号",
];

/// Whose: `billing_phone` is a phone. With one of these, `name` is a person's too.
const WHOSE: &[&str] = &[
    "billing",
    "buyer",
    "contact",
    "customer",
    "delivery",
    "guest",
    "home",
    "invitee",
    "member",
    "owner",
    "patient",
    "payer",
    "personal",
    "primary",
    "private",
    "recipient",
    "secondary",
    "sender",
    "shipping",
    "subscriber",
    "user",
    "work",
];

/// The longest name that can be one of these.
const NAME_BYTES: usize = 40;

/// Whether what stands under this name is a direct identifier. Letter case and separators do not
/// count. In `traits` plain `name` is a person's.
pub(super) fn is_personal(name: &str, traits: bool) -> bool {
    if !name.is_ascii() {
        return PERSONAL_CHINESE.contains(&name.trim());
    }
    let mut plain = [0u8; NAME_BYTES];
    let mut len = 0;
    for byte in name.bytes().filter(u8::is_ascii_alphanumeric) {
        let Some(slot) = plain.get_mut(len) else { return false };
        *slot = byte.to_ascii_lowercase();
        len += 1;
    }
    let plain = &plain[..len];
    if is_listed(plain) || (traits && plain == b"name") {
        return true;
    }
    whose(plain).is_some_and(|rest| rest == b"name" || is_listed(rest))
}

fn is_listed(plain: &[u8]) -> bool {
    may_be_in(&LISTED, plain, plain.len()) && PERSONAL.iter().any(|name| name.as_bytes() == plain)
}

/// What is left of the name without the person it begins with.
fn whose(plain: &[u8]) -> Option<&[u8]> {
    let first = plain.first().filter(|_| may_be_in(&OWNERS, plain, 0))?;
    let begins_alike = |whose: &&&str| whose.as_bytes().first() == Some(first);
    WHOSE.iter().filter(begins_alike).find_map(|whose| plain.strip_prefix(whose.as_bytes()))
}

/// By a name's first letter, a bit for each length that a listed name has: nearly every name of an
/// event ends here, in a nanosecond.
type Lengths = [u64; 26];

static LISTED: Lengths = lengths(PERSONAL, true);
static OWNERS: Lengths = lengths(WHOSE, false);

/// Without `exact`, one bit stands for every length.
const fn lengths(names: &[&str], exact: bool) -> Lengths {
    let mut table = [0; 26];
    let mut i = 0;
    while i < names.len() {
        let name = names[i].as_bytes();
        table[(name[0] - b'a') as usize] |= if exact { 1 << name.len() } else { 1 };
        i += 1;
    }
    table
}

fn may_be_in(table: &Lengths, plain: &[u8], length: usize) -> bool {
    let first = plain.first().and_then(|first| table.get(usize::from(first.wrapping_sub(b'a'))));
    first.is_some_and(|lengths| lengths & (1 << length) != 0)
}

/// How names begin and end of what has a number and is no person, like `order_id`.
const THINGS: &[&str] = &[
    "order",
    "product",
    "item",
    "sku",
    "transaction",
    "trade",
    "payment",
    "invoice",
    "session",
    "event",
    "message",
    "request",
    "trace",
    "span",
    "cart",
    "checkout",
    "shipment",
    "tracking",
    "parcel",
    "coupon",
    "voucher",
    "variant",
    "category",
    "shop",
    "store",
    "page",
    "click",
    "campaign",
    "batch",
    "offer",
    "ticket",
    "content",
    "article",
];
const THING_ENDS: &[&str] = &["id", "no", "number", "code", "sn", "key", "ref", "reference"];
/// Names that end so hold no person's number, whatever they begin with.
const NUMBERED: &[&str] = &[
    "sku",
    "ean",
    "gtin",
    "upc",
    "isbn",
    "asin",
    "barcode",
    "timestamp",
    "time",
    "version",
    "build",
    "firmware",
    "订单号",
    "订单编号",
    "商品编号",
    "商品id",
    "快递单号",
    "运单号",
    "物流单号",
    "流水号",
    "交易号",
    "版本",
    "版本号",
    "编号",
];

/// Whether a bare number under this name is the number of a thing. Asked only for a value that
/// looks like a person's, so it may cost.
pub(super) fn is_things_number(name: &str) -> bool {
    let plain = rapport_policy::plain_name(name);
    let ends = |ends: &[&str]| ends.iter().any(|end| plain.ends_with(end));
    ends(NUMBERED) || (THINGS.iter().any(|thing| plain.contains(thing)) && ends(THING_ENDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_found() {
        assert!(PERSONAL.iter().chain(PERSONAL_CHINESE).all(|name| is_personal(name, false)));
        assert!(WHOSE.iter().all(|whose| is_personal(&format!("{whose}_email"), false)));
    }

    #[test]
    fn a_name_is_known_in_every_spelling_and_with_a_person_before_it() {
        for name in [
            "email",
            "E-Mail",
            "emailAddress",
            "first_name",
            "Mobile Phone",
            "IP",
            "billing_phone",
            "shippingAddress",
            "customer_name",
            "recipientName",
            "userEmail",
            "手机号",
            "收货地址",
        ] {
            assert!(is_personal(name, false), "{name}");
        }
        assert!(is_personal("name", true));
    }

    #[test]
    fn names_of_things_are_not_persons() {
        for name in [
            "name",
            "product_name",
            "price",
            "emails_sent",
            "ship",
            "user_id",
            "customer",
            "useragent",
            "zip",
            "productAddressable",
            "",
            "城市",
            "a_very_long_name_that_is_longer_than_any_name_on_the_list",
        ] {
            assert!(!is_personal(name, false), "{name}");
        }
    }

    #[test]
    fn a_number_under_an_orders_name_is_the_orders() {
        for name in ["order_id", "orderNo", "ORDER-NUMBER", "payment_reference", "product_ean", "app_version", "订单号"]
        {
            assert!(is_things_number(name), "{name}");
        }
        for name in ["user_id", "customer_number", "note", "id", "phone", "account_no"] {
            assert!(!is_things_number(name), "{name}");
        }
    }
}
