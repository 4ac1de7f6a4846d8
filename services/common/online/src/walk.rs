//! Walks over the keys of one master.

use std::time::Duration;

use redis::{Pipeline, RedisError, Value};

use crate::Error;

/// Where a walk begins, and what its end says.
pub(crate) const START: &[u8] = b"0";

/// One step of a walk: about so many keys of a pattern.
pub(crate) fn scan(cursor: &[u8], pattern: &str, keys: usize) -> Pipeline {
    let mut page = redis::pipe();
    page.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(keys);
    page
}

/// Where the walk goes on, and the keys of the step.
pub(crate) fn scanned(answers: Vec<Value>) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
    let wrong = |reason: String| Error::Corrupt { key: "SCAN".into(), reason };
    let answer = match answers.into_iter().next() {
        Some(Value::Array(answer)) => answer,
        other => return Err(wrong(format!("{other:?}"))),
    };
    let mut answer = answer.into_iter();
    let (Some(Value::BulkString(next)), Some(Value::Array(keys))) = (answer.next(), answer.next()) else {
        return Err(wrong("is no cursor with keys".into()));
    };
    let keys = keys.into_iter().filter_map(|key| if let Value::BulkString(key) = key { Some(key) } else { None });
    Ok((next, keys.collect()))
}

/// An answer of Redis, or that there was none in time.
pub(crate) async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Timeout(timeout)),
    }
}
