//! Columns of files by the names in their header.

/// Where a file has what; the places from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Columns {
    pub customer: Option<usize>,
    pub item: Option<usize>,
    pub rating: Option<usize>,
    pub kind: Option<usize>,
    pub category: Option<usize>,
    pub time: Option<usize>,
}

impl Columns {
    /// By name; what follows a colon (RecBole's `:token`) is not part of it. Other columns are passed over.
    pub fn named(names: &[&str]) -> Self {
        let mut columns = Self::default();
        for (place, name) in names.iter().enumerate() {
            let name = name.split(':').next().unwrap_or_default().trim().to_lowercase();
            let column = match name.as_str() {
                "customer" | "customer_id" | "user" | "user_id" => &mut columns.customer,
                "item" | "item_id" | "product" | "product_id" => &mut columns.item,
                "rating" | "value" => &mut columns.rating,
                "type" | "event_type" | "event" | "action" => &mut columns.kind,
                "category" | "category_id" | "class" | "genres" => &mut columns.category,
                "time" | "timestamp" => &mut columns.time,
                _ => continue,
            };
            column.get_or_insert(place);
        }
        columns
    }

    /// Customer, item, perhaps a rating, perhaps a time: the columns of files without names.
    pub fn by_place(count: usize) -> Self {
        Self {
            customer: Some(0),
            item: Some(1),
            rating: (count == 4).then_some(2),
            time: (count > 2).then(|| count - 1),
            ..Self::default()
        }
    }

    /// Whether they say more than columns by place can.
    pub fn beyond_places(&self) -> bool {
        self.kind.is_some() || self.category.is_some()
    }
}
