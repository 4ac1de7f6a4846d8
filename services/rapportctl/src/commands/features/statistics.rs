use clap::Args;
use comfy_table::Cell;
use rapport_proto::features::{FeatureStatistics, GetStatisticsRequest};
use serde_json::json;

use crate::{
    commands::{number, right, time_text},
    context::Context,
    output,
};

#[derive(Debug, Args)]
pub struct ShowStatistics {
    /// Only these views of customers
    #[arg(long, value_delimiter = ',')]
    views: Vec<String>,
}

impl ShowStatistics {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = GetStatisticsRequest { views: self.views };
        let answer = context.feature_store()?.get_statistics(context.request(request)?).await;
        let answer = answer.map_err(|status| context.feature_store_refused(&status))?.into_inner();
        let reference = time_text(answer.reference_made.as_ref());
        context.output.answer(
            || {
                let of = |f: &FeatureStatistics| {
                    json!({
                        "name": f.name, "rows": f.rows, "nulls": f.nulls, "mean": f.mean, "smallest": f.smallest,
                        "largest": f.largest, "p05": f.p05, "p50": f.p50, "p95": f.p95, "drift": f.drift,
                        "differing": f.differing,
                    })
                };
                json!({
                    "features": answer.features.iter().map(of).collect::<Vec<_>>(),
                    "vectors_compared": answer.vectors_compared, "vectors_differing": answer.vectors_differing,
                    "reference_made": reference, "schema_hash": answer.schema_hash,
                })
            },
            |page| {
                let mut table =
                    output::table(["feature", "rows", "no value", "mean", "5 %", "50 %", "95 %", "largest", "drift"]);
                let cell = |value: Option<f64>| right(value.map_or_else(|| "-".to_owned(), number));
                for f in &answer.features {
                    let share = if f.rows == 0 { 0.0 } else { 100.0 * f.nulls as f64 / f.rows as f64 };
                    table.add_row(vec![
                        Cell::new(&f.name),
                        right(output::thousands(f.rows)),
                        right(format!("{share:.0} %")),
                        cell(f.mean),
                        cell(f.p05),
                        cell(f.p50),
                        cell(f.p95),
                        cell(f.largest),
                        right(f.drift.map_or_else(|| "-".to_owned(), |drift| format!("{drift:.3}"))),
                    ]);
                }
                page.table(&table);
                page.line(match &reference {
                    Some(made) => format!(
                        "drift: population stability index against the reference of {made}; below .1 stable, above .25 significant"
                    ),
                    None => "no reference: `features join --reference` makes one of training rows".to_owned(),
                });
                page.line(match (answer.vectors_compared, answer.vectors_differing) {
                    (0, _) => "no vector that was served has been folded again from the log yet".to_owned(),
                    (compared, 0) => format!("{} served vectors are what the log says", output::thousands(compared)),
                    (compared, differing) => format!(
                        "{} of {} served vectors are not what the log says: {}",
                        output::thousands(differing),
                        output::thousands(compared),
                        differing_features(&answer.features)
                    ),
                });
            },
        );
        Ok(())
    }
}

fn differing_features(features: &[FeatureStatistics]) -> String {
    let differing: Vec<_> = features.iter().filter(|f| f.differing > 0).map(|f| f.name.as_str()).collect();
    if differing.is_empty() { "in how many events they hold".to_owned() } else { differing.join(", ") }
}
