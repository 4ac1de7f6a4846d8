//! Requests as they stand on the wire, checked: what leaves here cannot be wrong.

use std::{collections::HashSet, sync::Arc};

use rapport_events::{FieldError, Tenant, check_id, limits, pseudonym::Pseudonymiser};
use rapport_proto::recommend::{RankRequest, RecommendRequest, SimilarItemsRequest};

use crate::recommender::Ask;

/// Items of one answer when the caller does not say.
pub const DEFAULT_LIMIT: usize = 10;
/// Items of one answer at most.
pub const MAX_LIMIT: usize = 500;
/// Items that a call may exclude.
pub const MAX_EXCLUDED: usize = 1_000;
/// Items that a call may have ranked.
pub const MAX_CANDIDATES: usize = 1_000;

/// Checks a `RecommendRequest`.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn recommend(request: RecommendRequest, tenant: &Tenant, hash: Option<&Pseudonymiser>) -> Result<Ask, FieldError> {
    let customer = customer(request.customer_id, tenant, hash)?;
    let limit = limit(request.limit)?;
    let excluded = ids("exclude_item_ids", &request.exclude_item_ids, MAX_EXCLUDED)
        .map(|()| request.exclude_item_ids.into_iter().collect::<HashSet<String>>())?;
    check_id("category", &request.category, limits::ID_BYTES)?;
    Ok(Ask {
        customer,
        limit,
        include_seen: request.include_seen,
        excluded,
        category: Some(request.category).filter(|category| !category.is_empty()),
        fresh: request.fresh,
    })
}

/// Checks a `SimilarItemsRequest`: the item and how many.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn similar(request: SimilarItemsRequest) -> Result<(String, usize), FieldError> {
    if request.item_id.is_empty() {
        return Err(FieldError::schema("item_id", "is empty; name the item that others should go with"));
    }
    check_id("item_id", &request.item_id, limits::ID_BYTES)?;
    Ok((request.item_id, limit(request.limit)?))
}

/// Checks a `RankRequest`: the customer and the items, each once, in the caller's order.
///
/// # Errors
/// The first field that is wrong, with its limit.
pub fn rank(
    request: RankRequest,
    tenant: &Tenant,
    hash: Option<&Pseudonymiser>,
) -> Result<(String, Vec<Arc<str>>), FieldError> {
    let customer = customer(request.customer_id, tenant, hash)?;
    ids("item_ids", &request.item_ids, MAX_CANDIDATES)?;
    let mut known = HashSet::with_capacity(request.item_ids.len());
    let items = request.item_ids.into_iter().map(Arc::<str>::from);
    Ok((customer, items.filter(|item| known.insert(item.clone())).collect()))
}

/// The customer's id as it is stored: the cleaner trims ids, and hashes those that name a person.
fn customer(id: String, tenant: &Tenant, hash: Option<&Pseudonymiser>) -> Result<String, FieldError> {
    let id = if id.trim().len() == id.len() { id } else { id.trim().to_owned() };
    if id.is_empty() {
        return Err(FieldError::identity("customer_id", "is empty; any id will do, a new one gets what is trending"));
    }
    check_id("customer_id", &id, limits::ID_BYTES)?;
    Ok(match hash {
        Some(hash) => hash.customer_id(tenant, &id),
        None => id,
    })
}

fn limit(limit: u32) -> Result<usize, FieldError> {
    match usize::try_from(limit).unwrap_or(usize::MAX) {
        0 => Ok(DEFAULT_LIMIT),
        limit if limit <= MAX_LIMIT => Ok(limit),
        limit => {
            Err(FieldError::size("limit", format!("may be 1 to {MAX_LIMIT}, or 0 for {DEFAULT_LIMIT}; is {limit}")))
        }
    }
}

fn ids(field: &str, ids: &[String], most: usize) -> Result<(), FieldError> {
    if ids.len() > most {
        return Err(FieldError::size(field, format!("may hold {most} ids, holds {}", ids.len())));
    }
    for (place, id) in ids.iter().enumerate() {
        check_id(field, id, limits::ID_BYTES)
            .map_err(|error| FieldError { field: format!("{field}[{place}]"), ..error })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acme() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    fn ask(request: RecommendRequest) -> Result<Ask, FieldError> {
        recommend(request, &acme(), None)
    }

    fn plain() -> RecommendRequest {
        RecommendRequest { customer_id: "ann".into(), ..RecommendRequest::default() }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_limit() {
        let error = |request| ask(request).unwrap_err().to_string();
        assert!(error(RecommendRequest::default()).starts_with("customer_id: is empty"));
        let blank = RecommendRequest { customer_id: " ".into(), ..plain() };
        assert!(error(blank).starts_with("customer_id: is empty"));
        let long = RecommendRequest { customer_id: "x".repeat(129), ..plain() };
        assert_eq!(error(long), "customer_id: may have 128 bytes, has 129");
        let many = RecommendRequest { limit: 501, ..plain() };
        assert_eq!(error(many), "limit: may be 1 to 500, or 0 for 10; is 501");
        let much = RecommendRequest { exclude_item_ids: vec!["a".into(); 1001], ..plain() };
        assert_eq!(error(much), "exclude_item_ids: may hold 1000 ids, holds 1001");
        let odd = RecommendRequest { exclude_item_ids: vec!["a".into(), "b\n".into()], ..plain() };
        assert!(error(odd).starts_with("exclude_item_ids[1]: "));
        let category = RecommendRequest { category: "c".repeat(200), ..plain() };
        assert_eq!(error(category), "category: may have 128 bytes, has 200");
    }

    #[test]
    fn no_limit_means_ten() {
        assert_eq!(ask(plain()).unwrap().limit, 10);
        assert_eq!(ask(RecommendRequest { limit: 500, ..plain() }).unwrap().limit, 500);
    }

    #[test]
    fn an_address_is_looked_up_under_its_pseudonym() {
        let hash = Pseudonymiser::new(&[7; 32]).unwrap();
        let request = RecommendRequest { customer_id: "Ann@Example.com".into(), ..RecommendRequest::default() };
        let ask = recommend(request, &acme(), Some(&hash)).unwrap();
        assert_eq!(ask.customer, hash.customer_id(&acme(), "ann@example.com"));
    }

    #[test]
    fn candidates_are_ranked_once_each_in_the_callers_order() {
        let request = RankRequest {
            customer_id: "ann".into(),
            item_ids: ["b", "a", "b"].map(String::from).to_vec(),
            with_titles: false,
        };
        let (_, items) = rank(request, &acme(), None).unwrap();
        assert_eq!(items, [Arc::from("b"), Arc::from("a")]);
    }

    proptest! {
        #[test]
        fn no_request_panics_and_what_passes_is_within_its_limits(
            customer_id: String, limit: u32, category: String,
            exclude_item_ids in proptest::collection::vec(".{0,140}", 0..5),
        ) {
            let request = RecommendRequest { customer_id, limit, category, exclude_item_ids, ..plain() };
            if let Ok(ask) = ask(request) {
                prop_assert!((1..=MAX_LIMIT).contains(&ask.limit));
                prop_assert!(!ask.customer.is_empty() && ask.customer.len() <= limits::ID_BYTES);
            }
        }
    }
}
