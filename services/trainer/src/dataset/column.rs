//! A column of one customer's history: in memory, or a part of a file that is mapped into it.
//!
//! The exception to this crate's ban on `unsafe`: a mapped file must not change while it is read. These files
//! have no name any more when they are mapped, so nobody else can open them, and nothing here writes to them.
#![allow(unsafe_code)]

use std::{
    fmt,
    fs::File,
    io,
    marker::PhantomData,
    ops::{Deref, Range},
    sync::Arc,
};

use memmap2::Mmap;

/// What may stand in a mapped column: every pattern of bits is a value.
pub trait Plain: Copy + fmt::Debug + PartialEq + 'static + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for i64 {}
    impl Sealed for f32 {}
}

impl<T: Copy + fmt::Debug + PartialEq + 'static + sealed::Sealed> Plain for T {}

/// A whole file of values.
pub(super) struct Mapped<T> {
    map: Option<Mmap>,
    values: PhantomData<T>,
}

impl<T: Plain> Mapped<T> {
    /// Maps a file of this machine's `T`, which has no name and is not written to any more.
    ///
    /// # Errors
    /// The operating system does not map it.
    pub fn of(file: &File) -> io::Result<Arc<Self>> {
        let empty = file.metadata()?.len() == 0;
        // SAFETY: the file has no name and this process alone has it; nobody writes to it from here on (see above).
        let map = if empty { None } else { Some(unsafe { Mmap::map(file)? }) };
        Ok(Arc::new(Self { map, values: PhantomData }))
    }

    fn values(&self) -> &[T] {
        let bytes: &[u8] = self.map.as_deref().unwrap_or_default();
        // SAFETY: every pattern of bits is a `T`. A map begins at a page, so nothing comes before.
        let (before, values, _) = unsafe { bytes.align_to::<T>() };
        debug_assert!(before.is_empty());
        values
    }
}

/// Values of one customer, oldest first: a slice wherever they lie.
#[derive(Clone)]
pub struct Column<T: Plain>(Place<T>);

#[derive(Clone)]
enum Place<T: Plain> {
    Owned(Vec<T>),
    Mapped(Arc<Mapped<T>>, Range<usize>),
}

impl<T: Plain> Column<T> {
    pub(super) fn mapped(all: &Arc<Mapped<T>>, range: Range<usize>) -> Self {
        Self(Place::Mapped(Arc::clone(all), range))
    }

    pub fn as_slice(&self) -> &[T] {
        match &self.0 {
            Place::Owned(values) => values,
            Place::Mapped(all, range) => &all.values()[range.clone()],
        }
    }

    /// Whether it lies in a file.
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.0, Place::Mapped(..))
    }

    /// Adds a value; one that was mapped is in memory afterwards.
    pub fn push(&mut self, value: T) {
        if let Place::Mapped(..) = &self.0 {
            self.0 = Place::Owned(self.as_slice().to_vec());
        }
        if let Place::Owned(values) = &mut self.0 {
            values.push(value);
        }
    }
}

impl<T: Plain> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Plain> Default for Column<T> {
    fn default() -> Self {
        Self(Place::Owned(Vec::new()))
    }
}

impl<T: Plain> From<Vec<T>> for Column<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Place::Owned(values))
    }
}

impl<T: Plain> FromIterator<T> for Column<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(Place::Owned(values.into_iter().collect()))
    }
}

impl<'a, T: Plain> IntoIterator for &'a Column<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl<T: Plain> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl<T: Plain, O: AsRef<[T]>> PartialEq<O> for Column<T> {
    fn eq(&self, other: &O) -> bool {
        self.as_slice() == other.as_ref()
    }
}

impl<T: Plain> AsRef<[T]> for Column<T> {
    fn as_ref(&self) -> &[T] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_mapped_column_is_the_slice_that_was_written() {
        let mut file = tempfile::tempfile().unwrap();
        for value in 0..1000_i64 {
            file.write_all(&(value * 3).to_ne_bytes()).unwrap();
        }
        let all = Mapped::<i64>::of(&file).unwrap();
        drop(file);
        let mut column = Column::mapped(&all, 10..13);
        assert_eq!(column, [30, 33, 36]);
        assert_eq!(column[1..], [33, 36]);
        column.push(1);
        assert_eq!(column, vec![30, 33, 36, 1]);
        let nothing = Mapped::<u32>::of(&tempfile::tempfile().unwrap()).unwrap();
        assert!(Column::mapped(&nothing, 0..0).is_empty());
    }
}
