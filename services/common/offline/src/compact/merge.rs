//! Files of one tenant and day made one, column by column: what a newer build has written is kept as it is.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, new_null_array},
    compute::concat_batches,
    datatypes::{Field, Schema, SchemaRef},
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::{
    Error, Manifest, ManifestFile, Record,
    columns::{self, column},
    store::within,
};

/// Files that are fetched at once.
const AT_ONCE: usize = 8;

/// What a merge has made, and which files it has taken the place of.
pub(super) struct Merged {
    pub manifest: Manifest,
    pub written: Vec<String>,
    pub replaced: Vec<String>,
}

/// Writes the files of these neighbours merged by tenant and day, under names that nobody else writes. What has no
/// partner stays as it is.
pub(super) async fn merge<R: Record>(
    store: &dyn ObjectStore,
    neighbours: &[Manifest],
    token: &str,
) -> Result<Merged, Error> {
    let [begin, .., end] = neighbours else { return Err(Error::Pack("one manifest alone is not merged".into())) };
    let (partition, first, last) = (begin.partition, begin.first, end.last);
    let mut by_file: BTreeMap<(&str, &str), Vec<(&Manifest, &ManifestFile)>> = BTreeMap::new();
    for manifest in neighbours {
        for file in &manifest.files {
            by_file.entry((&file.tenant, &file.day)).or_default().push((manifest, file));
        }
    }
    let (mut files, mut written, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    for ((tenant, day), members) in by_file {
        if let [(_, alone)] = members.as_slice() {
            files.push((*alone).clone());
            continue;
        }
        let fetches: Vec<_> = members.iter().map(|(_, file)| fetch(store, file)).collect();
        let fetched: Vec<Bytes> = futures::stream::iter(fetches).buffered(AT_ONCE).try_collect().await?;
        let mut batches = Vec::new();
        for ((manifest, file), bytes) in members.iter().zip(fetched) {
            batches.extend(read(manifest, file, bytes)?);
        }
        let path = format!("{}/tenant={tenant}/day={day}/p{partition}-{first}-{last}-{token}.parquet", R::FILES);
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = packed(&Path::from(path.as_str()), batches)?;
        let size = bytes.len();
        within(store.put(&Path::from(path.as_str()), PutPayload::from(bytes))).await?;
        written.push(path.clone());
        replaced.extend(members.iter().map(|(_, file)| file.path.clone()));
        files.push(ManifestFile { path, tenant: tenant.to_owned(), day: day.to_owned(), rows, bytes: size });
    }
    Ok(Merged { manifest: Manifest::new(partition, first, last, files), written, replaced })
}

async fn fetch(store: &dyn ObjectStore, file: &ManifestFile) -> Result<Bytes, Error> {
    let path = Path::from(file.path.as_str());
    within(async { store.get(&path).await?.bytes().await }).await
}

/// A file's rows, which must be as many as its manifest says, of its offsets, in their order.
fn read(manifest: &Manifest, file: &ManifestFile, bytes: Bytes) -> Result<Vec<RecordBatch>, Error> {
    let path = Path::from(file.path.as_str());
    let wrong = |e: &dyn std::fmt::Display| Error::corrupt(&path, e.to_string());
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build()).map_err(|e| wrong(&e))?;
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows != file.rows {
        return Err(wrong(&format!("has {rows} rows, its manifest says {}", file.rows)));
    }
    let mut before = manifest.first;
    for batch in &batches {
        let partitions: &Int32Array = column(&path, batch, "partition")?;
        let offsets: &Int64Array = column(&path, batch, "offset")?;
        for (&partition, &offset) in partitions.values().iter().zip(offsets.values()) {
            if partition != manifest.partition || offset < before || offset > manifest.last {
                return Err(wrong(&format!("holds offset {offset} of partition {partition} out of its order")));
            }
            before = offset;
        }
    }
    Ok(batches)
}

/// The columns of all, in the order in which they came up. What a file has not is null there.
fn union(path: &Path, batches: &[RecordBatch]) -> Result<SchemaRef, Error> {
    let mut fields: Vec<Field> = Vec::new();
    for schema in batches.iter().map(RecordBatch::schema_ref) {
        for field in schema.fields() {
            match fields.iter_mut().find(|known| known.name() == field.name()) {
                None => fields.push(field.as_ref().clone()),
                Some(known) if known.data_type() == field.data_type() => {
                    known.set_nullable(known.is_nullable() || field.is_nullable());
                }
                Some(known) => {
                    let reason = format!("{} is {} and {}", field.name(), known.data_type(), field.data_type());
                    return Err(Error::corrupt(path, reason));
                }
            }
        }
    }
    for field in &mut fields {
        let everywhere = batches.iter().all(|batch| batch.schema_ref().column_with_name(field.name()).is_some());
        field.set_nullable(field.is_nullable() || !everywhere);
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn packed(path: &Path, batches: Vec<RecordBatch>) -> Result<Vec<u8>, Error> {
    let failed = |e: arrow::error::ArrowError| Error::Pack(e.to_string());
    let schema = union(path, &batches)?;
    let widened = batches.into_iter().map(|batch| {
        let of = |field: &Arc<Field>| -> ArrayRef {
            let column = batch.column_by_name(field.name()).cloned();
            column.unwrap_or_else(|| new_null_array(field.data_type(), batch.num_rows()))
        };
        RecordBatch::try_new(Arc::clone(&schema), schema.fields().iter().map(of).collect()).map_err(failed)
    });
    let widened = widened.collect::<Result<Vec<_>, Error>>()?;
    let one = concat_batches(&schema, &widened).map_err(failed)?;
    columns::write(schema, one.columns().to_vec())
}
