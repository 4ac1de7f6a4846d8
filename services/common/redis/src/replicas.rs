use std::time::Duration;

use redis::{ErrorKind, Pipeline, RedisError, Value};

/// How many replicas must have a write before it counts as made, and how long that may take (`WAIT`).
///
/// Redis answers a write before its replicas have it: a failover loses what had not come through yet. A write that
/// counts only when a replica has it is not lost when that replica takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    pub count: u8,
    pub within: Duration,
}

impl Replicas {
    /// A master's own word is enough.
    pub const NONE: Self = Self { count: 0, within: Duration::ZERO };

    fn words(self) -> Option<[String; 3]> {
        (self.count > 0).then(|| ["WAIT".into(), self.count.to_string(), self.within.as_millis().max(1).to_string()])
    }

    pub(crate) fn add_to(self, pipeline: &mut Pipeline) {
        if let Some([name, count, within]) = self.words() {
            pipeline.cmd(&name).arg(count).arg(within);
        }
    }

    /// The same as it goes over the wire; nothing for [`Self::NONE`].
    pub fn packed(self) -> Vec<u8> {
        let mut pipeline = redis::pipe();
        self.add_to(&mut pipeline);
        pipeline.get_packed_pipeline()
    }

    /// Takes the answer to what was added off the end of the others.
    ///
    /// # Errors
    /// Too few replicas have it: the write may have been made and be lost later.
    pub fn check(self, answers: &mut Vec<Value>) -> Result<(), RedisError> {
        if self.count == 0 {
            return Ok(());
        }
        let have = match answers.pop().unwrap_or_default().extract_error()? {
            Value::Int(have) => have,
            _ => 0,
        };
        if have >= i64::from(self.count) {
            return Ok(());
        }
        let told = format!("{have} of {} within {:?}", self.count, self.within);
        Err(RedisError::from((ErrorKind::Io, "too few replicas have a write", told)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_when_enough_replicas_have_it() {
        let two = Replicas { count: 2, within: Duration::from_millis(250) };
        assert_eq!(two.packed(), b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n250\r\n");
        let mut answers = vec![Value::Okay, Value::Int(2)];
        two.check(&mut answers).unwrap();
        assert_eq!(answers, [Value::Okay]);
        let refused = two.check(&mut vec![Value::Okay, Value::Int(1)]).unwrap_err().to_string();
        assert!(refused.contains("1 of 2 within 250ms"), "{refused}");

        assert!(Replicas::NONE.packed().is_empty());
        let mut answers = vec![Value::Int(0)];
        Replicas::NONE.check(&mut answers).unwrap();
        assert_eq!(answers, [Value::Int(0)], "nothing was asked");
    }
}
