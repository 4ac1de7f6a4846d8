//! Where lists go: a folder of files, each whole or not there, or a topic.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use prost::Message as _;
use rapport_events::{EventTime, Tenant, event_key};
use rapport_kafka::{KafkaArgs, Publisher, PublisherSettings, headers};
use rapport_proto::recommend::{RecommendResponse, Served};
use rdkafka::message::OwnedHeaders;

use crate::{error::Usage, evaluate::whole_file, join::table, rows::Format};

/// Lists of one file: some 2 million rows of 20 items each.
const LISTS_A_FILE: usize = 100_000;
/// Lists that go to Kafka together.
const LISTS_A_BATCH: usize = 1_000;

/// A list, as it was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub customer_id: String,
    pub at: EventTime,
    pub answer: RecommendResponse,
}

/// Takes lists until it is ended.
pub enum Sink {
    Files(Files),
    Topic(Topic),
}

impl Sink {
    /// # Errors
    /// The disk or Kafka does not take it.
    pub async fn put(&mut self, made: Made) -> anyhow::Result<()> {
        match self {
            Self::Files(files) => files.put(made),
            Self::Topic(topic) => topic.put(made).await,
        }
    }

    /// Puts down what is left, and says that all is there when it is `whole`.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn end(self, whole: bool) -> anyhow::Result<()> {
        match self {
            Self::Files(mut files) => {
                files.write()?;
                // As Spark says it: a reader that waits for this name sees every file.
                if whole { whole_file::write(&files.folder.join("_SUCCESS"), b"") } else { Ok(()) }
            }
            Self::Topic(mut topic) => topic.send().await,
        }
    }
}

/// `part-00000.parquet` and so on in a folder that was empty.
pub struct Files {
    folder: PathBuf,
    format: Format,
    tenant: Tenant,
    waiting: Vec<Made>,
    written: usize,
}

impl Files {
    /// # Errors
    /// [`Usage`]: the folder holds something already, or cannot be made.
    pub fn open(folder: &Path, format: Format, tenant: &Tenant) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Usage(format!("{}: {error}", folder.display())))?;
        if fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?.next().is_some() {
            return Err(Usage(format!("{} is not empty; name another folder", folder.display())).into());
        }
        Ok(Self { folder: folder.to_owned(), format, tenant: tenant.clone(), waiting: Vec::new(), written: 0 })
    }

    fn put(&mut self, made: Made) -> anyhow::Result<()> {
        self.waiting.push(made);
        if self.waiting.len() >= LISTS_A_FILE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let lists = std::mem::take(&mut self.waiting);
        let ending = match self.format {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        };
        let path = self.folder.join(format!("part-{:05}.{ending}", self.written));
        self.written += 1;
        whole_file::write(&path, &table::written(&rows(&self.tenant, &lists)?, self.format, &[])?)
    }
}

/// A row for each item, as the log of served lists has them. A list without items has no row.
fn rows(tenant: &Tenant, lists: &[Made]) -> anyhow::Result<RecordBatch> {
    let items = || lists.iter().flat_map(|made| made.answer.items.iter().zip(1u32..).map(move |item| (made, item)));
    let text = |of: &dyn Fn(&Made, &rapport_proto::recommend::ScoredItem) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(items().map(|(made, (item, _))| of(made, item))))
    };
    let about = |of: fn(&rapport_proto::recommend::Provenance) -> &str| {
        text(&|made, _| made.answer.provenance.as_ref().map_or("", of).to_owned())
    };
    let times = TimestampMillisecondArray::from_iter_values(items().map(|(made, _)| made.at.as_ms()));
    let newest = items().map(|(made, _)| {
        let newest = made.answer.provenance.as_ref()?.newest_event_time.as_ref()?;
        EventTime::from_proto(newest).map(EventTime::as_ms)
    });
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", text(&|_, _| tenant.to_string())),
        ("customer_id", text(&|made, _| made.customer_id.clone())),
        ("place", Arc::new(UInt32Array::from_iter_values(items().map(|(_, (_, place))| place)))),
        ("item_id", text(&|_, item| item.item_id.clone())),
        ("score", Arc::new(Float64Array::from_iter_values(items().map(|(_, (item, _))| item.score)))),
        ("sources", text(&|_, item| item.sources.join(","))),
        ("model", about(|p| &p.model)),
        ("model_version", about(|p| &p.model_version)),
        ("placement", about(|p| &p.placement)),
        ("experiment", about(|p| &p.experiment)),
        ("arm", about(|p| &p.arm)),
        ("made_at", Arc::new(times.with_timezone("UTC"))),
        ("newest_event_time", Arc::new(newest.collect::<TimestampMillisecondArray>().with_timezone("UTC"))),
    ];
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), column.is_nullable());
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    debug_assert!(matches!(schema.field(11).data_type(), DataType::Timestamp(TimeUnit::Millisecond, Some(_))));
    Ok(RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect())?)
}

/// `Served` records, keyed as the topic of what was shown, which they are not on.
pub struct Topic {
    publisher: Publisher,
    topic: String,
    tenant: Tenant,
    waiting: Vec<Made>,
}

impl Topic {
    /// # Errors
    /// A setting that Kafka's client does not take.
    pub fn open(kafka: &KafkaArgs, topic: &str, tenant: &Tenant) -> anyhow::Result<Self> {
        let publisher = Publisher::new(kafka, &PublisherSettings::new("rapportctl-export"))?;
        Ok(Self { publisher, topic: topic.to_owned(), tenant: tenant.clone(), waiting: Vec::new() })
    }

    async fn put(&mut self, made: Made) -> anyhow::Result<()> {
        self.waiting.push(made);
        if self.waiting.len() >= LISTS_A_BATCH { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let mut batch = self.publisher.batch(self.waiting.len());
        for made in self.waiting.drain(..) {
            let key = event_key(&self.tenant, &made.customer_id);
            let served = Served {
                tenant: self.tenant.to_string(),
                customer_id: made.customer_id,
                items: made.answer.items,
                provenance: made.answer.provenance,
                served_at: Some(made.at.to_proto()),
            };
            let owned = headers::with(OwnedHeaders::new(), headers::CONTENT_TYPE, headers::PROTOBUF);
            let owned = headers::with(owned, headers::TENANT, self.tenant.as_str());
            batch
                .send(&self.topic, Some(key.as_bytes()), Some(&served.encode_to_vec()), owned)
                .map_err(|refused| anyhow::anyhow!("Kafka does not take the lists: {refused}"))?;
        }
        for result in batch.acknowledged().await {
            result.with_context(|| format!("a list was not acknowledged on {}", self.topic))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rapport_proto::recommend::{Provenance, ScoredItem};

    use super::*;

    fn made(customer: &str, items: usize) -> Made {
        let item = |n| ScoredItem { item_id: format!("i{n}"), score: 1.0 / f64::from(n), ..ScoredItem::default() };
        let items = (1..=items as u32).map(item).collect();
        let provenance = Some(Provenance { model: "next-item".into(), ..Provenance::default() });
        let answer = RecommendResponse { items, provenance };
        Made { customer_id: customer.into(), at: EventTime::from_ms(1_000), answer }
    }

    #[tokio::test]
    async fn a_folder_has_every_list_and_says_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("lists");
        let tenant = Tenant::parse("demo").unwrap();
        let mut sink = Sink::Files(Files::open(&into, Format::Ndjson, &tenant).unwrap());
        for (customer, items) in [("ann", 2), ("bob", 0), ("cy", 1)] {
            sink.put(made(customer, items)).await.unwrap();
        }
        assert!(!into.join("_SUCCESS").exists());
        sink.end(true).await.unwrap();
        assert!(into.join("_SUCCESS").exists());
        let lines = fs::read_to_string(into.join("part-00000.ndjson")).unwrap();
        let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of: Vec<_> =
            rows.iter().map(|row| (row["customer_id"].as_str().unwrap(), row["place"].as_u64().unwrap())).collect();
        assert_eq!(of, [("ann", 1), ("ann", 2), ("cy", 1)]);
        assert_eq!((&rows[1]["item_id"], &rows[1]["score"]), (&"i2".into(), &0.5.into()));
        assert_eq!(
            (&rows[0]["made_at"], &rows[0]["newest_event_time"]),
            (&"1970-01-01T00:00:01Z".into(), &serde_json::Value::Null)
        );

        let part = folder.path().join("part");
        let mut sink = Sink::Files(Files::open(&part, Format::Csv, &tenant).unwrap());
        sink.put(made("ann", 1)).await.unwrap();
        sink.end(false).await.unwrap();
        assert!(part.join("part-00000.csv").exists() && !part.join("_SUCCESS").exists(), "what was made is there");
        let again = Files::open(&into, Format::Ndjson, &tenant).err().unwrap();
        assert!(again.to_string().contains("not empty"), "{again}");
    }
}
