//! The offline log: merge its small files, name the files that hold.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rapport_offline::{Compaction, CompactionSettings, Location, OfflineLog, Selection};
use serde_json::json;

use crate::{
    blocking::on_thread,
    context::Context,
    offline_log,
    output::{self, thousands},
};

#[derive(Debug, Subcommand)]
pub enum OfflineCommand {
    /// Merge small files of events and of served lists into larger ones; readers notice nothing
    Compact(Compact),
    /// The Parquet files that hold, one a line: what to give to DuckDB, Polars or Spark
    Files(Files),
}

#[derive(Debug, Args)]
pub struct Compact {
    /// Rows of a merged manifest at most; they are in memory while it is made
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    rows: u32,
    /// Leave alone what was written so lately: readers that follow the log stand there
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Delete files so long after they were replaced; a reading that takes longer fails
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// The offline log: a folder, or s3://<bucket>/<prefix> with AWS_* variables [default: the running stack's, else .rapport/offline]
    #[arg(long, env = "RAPPORT_OFFLINE_URL")]
    offline_url: Option<String>,
}

#[derive(Debug, Args)]
pub struct Files {
    /// First day of the events' times, YYYY-MM-DD
    #[arg(long)]
    from: Option<String>,
    /// Last day, included
    #[arg(long)]
    to: Option<String>,
    /// Of the lists that were served, instead of the events
    #[arg(long)]
    served: bool,
    /// The offline log: a folder, or s3://<bucket>/<prefix> with AWS_* variables [default: the running stack's, else .rapport/offline]
    #[arg(long, env = "RAPPORT_OFFLINE_URL")]
    offline_url: Option<String>,
}

impl OfflineCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Compact(compact) => compact.run(context).await,
            Self::Files(files) => files.run(context).await,
        }
    }
}

impl Compact {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let offline = offline_log::args(self.offline_url.as_ref(), context)?;
        let settings = CompactionSettings {
            rows: usize::try_from(self.rows).unwrap_or(usize::MAX),
            settle: self.settle,
            grace: self.grace,
        };
        let since = Instant::now();
        let done = on_thread("compact", move || Ok(OfflineLog::open(&offline)?.compact(&settings, &|| false)?)).await?;
        let Compaction { manifests_merged, files_merged, files_written, rows, deleted, overtaken } = done;
        context.output.answer(
            || {
                json!({
                    "manifests_merged": manifests_merged,
                    "files_merged": files_merged,
                    "files_written": files_written,
                    "rows": rows,
                    "deleted": deleted,
                    "overtaken": overtaken,
                })
            },
            |page| {
                page.line(format!(
                    "{} files became {} ({} rows) in {}; {} old ones deleted",
                    thousands(files_merged as u64),
                    thousands(files_written as u64),
                    thousands(rows as u64),
                    output::human(since.elapsed()),
                    thousands(deleted as u64)
                ));
                if overtaken > 0 {
                    page.line(format!("another compaction was at work at {overtaken} partitions and went ahead"));
                }
            },
        );
        Ok(())
    }
}

impl Files {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let offline = offline_log::args(self.offline_url.as_ref(), context)?;
        let root = match Location::parse(&offline.offline_url)? {
            Location::Folder(folder) => folder.display().to_string(),
            Location::S3 { .. } => offline.offline_url.clone(),
        };
        let selection = Selection { from_day: self.from, to_day: self.to, ..Selection::of(&context.tenant) };
        let manifests = on_thread("files", move || {
            let log = OfflineLog::open(&offline)?;
            Ok(if self.served { log.served_manifests()? } else { log.manifests()? })
        })
        .await?;
        let files = manifests.into_iter().flat_map(|manifest| manifest.files);
        let files: Vec<_> = files.filter(|file| selection.takes(file)).collect();
        let path = |path: &str| format!("{}/{path}", root.trim_end_matches('/'));
        context.output.answer(
            || {
                let file = |file: &rapport_offline::ManifestFile| {
                    json!({ "path": path(&file.path), "day": file.day, "rows": file.rows, "bytes": file.bytes })
                };
                files.iter().map(file).collect()
            },
            |page| files.iter().for_each(|file| page.line(path(&file.path))),
        );
        Ok(())
    }
}
