//! What answers about an entity have: numbers in a vector, lists beside it, and what is computed at the read.

use std::collections::BTreeMap;

use crate::{Entity, Error, OnDemand, Views, Wanted, declare::wrong};

impl Views {
    /// The columns of an entity's vector, each `<view>.<feature>`: the features whose values are numbers.
    pub fn names(&self, entity: Entity) -> &[String] {
        let plan = self.plan(entity);
        plan.names.get(..plan.lists_from).unwrap_or_default()
    }

    /// The features of an entity whose values are lists.
    pub fn list_names(&self, entity: Entity) -> &[String] {
        let plan = self.plan(entity);
        plan.names.get(plan.lists_from..).unwrap_or_default()
    }

    /// Every feature of an entity, `<view>.<feature>`, in the order of the file.
    pub fn declared(&self, entity: Entity) -> impl Iterator<Item = String> {
        let views = self.views.iter().filter(move |view| view.entity == entity);
        views.flat_map(|view| view.features.iter().map(move |feature| format!("{}.{}", view.name, feature.name)))
    }

    /// Whether anything is kept of such entities.
    pub fn keeps(&self, entity: Entity) -> bool {
        !self.plan(entity).features.is_empty()
    }

    /// Which columns of the entity's vector the named views have; all of them when none is named.
    ///
    /// # Errors
    /// The name that is not a view of this entity.
    pub fn columns(&self, entity: Entity, views: &[String]) -> Result<Vec<usize>, String> {
        self.of_views(entity, views, self.names(entity).iter().map(String::as_str))
    }

    /// Which lists of the entity the named views have, as [`Self::columns`].
    ///
    /// # Errors
    /// The name that is not a view of this entity.
    pub fn list_columns(&self, entity: Entity, views: &[String]) -> Result<Vec<usize>, String> {
        self.of_views(entity, views, self.list_names(entity).iter().map(String::as_str))
    }

    /// The features of an entity that are computed when they are read.
    pub fn on_demand(&self, entity: Entity) -> &[OnDemand] {
        let [customer, item, category, session, segment] = &self.on_demand;
        match entity {
            Entity::Customer => customer,
            Entity::Item => item,
            Entity::CustomerCategory => category,
            Entity::Session => session,
            Entity::Segment => segment,
        }
    }

    /// Which on-demand features of the entity the named views have, as [`Self::columns`].
    ///
    /// # Errors
    /// The name that is not a view of this entity.
    pub fn on_demand_columns(&self, entity: Entity, views: &[String]) -> Result<Vec<usize>, String> {
        self.of_views(entity, views, self.on_demand(entity).iter().map(OnDemand::name))
    }

    /// What features are normalised that the file has no statistics of, each with the first feature that needs them.
    pub fn lack_statistics(&self) -> BTreeMap<String, &str> {
        let mut lacking = BTreeMap::new();
        for feature in self.on_demand.iter().flatten() {
            if let Some((of, false)) = feature.normalises() {
                lacking.entry(of).or_insert(feature.name());
            }
        }
        lacking
    }

    /// As an error of declarations, for who is about to serve with these views.
    ///
    /// # Errors
    /// Statistics are missing.
    pub fn fit_to_serve(&self) -> Result<(), Error> {
        match self.lack_statistics().into_iter().next() {
            None => Ok(()),
            Some((of, feature)) => Err(wrong(
                &format!("views.{feature}"),
                format!("needs statistics of {of}, which `rapportctl features fit` writes into the file"),
            )),
        }
    }

    /// The request values that there are, by name, and what each must be.
    pub fn request_values(&self) -> &BTreeMap<String, Wanted> {
        &self.request_values
    }

    /// The places of those names that are of the views.
    fn of_views<'a>(
        &self,
        entity: Entity,
        views: &[String],
        names: impl ExactSizeIterator<Item = &'a str> + Clone,
    ) -> Result<Vec<usize>, String> {
        if views.is_empty() {
            return Ok((0..names.len()).collect());
        }
        let mut columns = Vec::new();
        for view in views {
            if !self.views.iter().any(|v| v.entity == entity && v.name == *view) {
                return Err(view.clone());
            }
            let starts = |name: &str| name.strip_prefix(view.as_str()).is_some_and(|rest| rest.starts_with('.'));
            columns.extend(names.clone().enumerate().filter(|(_, name)| starts(name)).map(|(i, _)| i));
        }
        Ok(columns)
    }
}
