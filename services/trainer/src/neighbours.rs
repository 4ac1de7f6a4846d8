//! Items that the same customers take: shrunken cosine between items.

use std::collections::BTreeMap;

use rapport_registry::{Neighbour, Neighbours};

use crate::{dataset::Dataset, models::common_customers};

/// Neighbours of each item.
const MOST: usize = 50;
/// Added to the denominator: two items with one customer in common are not alike for sure.
const SHRINKAGE: f32 = 10.0;

/// For each item the [`MOST`] nearest: customers in common / (sqrt(customers of a * customers of b)
/// + shrinkage). Items that share no customer with any other are left out.
pub fn neighbours(data: &Dataset) -> Neighbours {
    let mut by_item = BTreeMap::new();
    common_customers::each_item(&data.histories(), data.width(), &mut |item, common, customers| {
        let Some(id) = data.items.id(item) else { return };
        let own = customers[item] as f32;
        let others = common.iter().enumerate().filter(|&(other, &count)| other != item && count > 0);
        let mut near: Vec<(f32, usize)> = others
            .map(|(other, &count)| (count as f32 / ((own * customers[other] as f32).sqrt() + SHRINKAGE), other))
            .collect();
        near.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        near.truncate(MOST);
        let near: Vec<Neighbour> = near
            .into_iter()
            .filter_map(|(cosine, other)| data.items.id(other).map(|other| Neighbour { item: other.into(), cosine }))
            .collect();
        if !near.is_empty() {
            by_item.insert(id.to_owned(), near);
        }
    });
    Neighbours::new(by_item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Builder, Limits};

    #[test]
    fn items_of_the_same_customers_are_neighbours_and_strangers_are_not() {
        let mut builder = Builder::new(Limits { events: 1000, items: 100 });
        for customer in 0..20 {
            for item in if customer < 10 { ["tea", "pot"] } else { ["nail", "hammer"] } {
                builder.add(&customer.to_string(), item, customer, 0, 0).unwrap();
            }
        }
        builder.add("0", "nail", 99, 0, 0).unwrap();
        let neighbours = neighbours(&builder.finish("demo").unwrap());
        assert_eq!(neighbours.of("tea")[0].item, "pot");
        assert_eq!(neighbours.of("tea")[0].cosine, 10.0 / 20.0);
        assert_eq!(neighbours.of("nail")[0].item, "hammer");
        assert!(neighbours.of("hammer").iter().all(|n| n.item == "nail"));
    }
}
