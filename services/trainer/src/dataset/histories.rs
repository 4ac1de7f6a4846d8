//! Every customer's history, put together event by event: in memory, or in one file for each column.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
};

use super::{
    Customer,
    column::{Column, Mapped, Plain},
    sorter::Memory,
};
use crate::Error;

pub(super) enum Histories {
    InMemory(Vec<Customer>),
    OnDisk(Box<OnDisk>),
}

pub(super) struct OnDisk {
    memory: Memory,
    /// Where each customer's events begin, and how many there are.
    places: Vec<(usize, usize)>,
    events: usize,
    items: BufWriter<File>,
    times: BufWriter<File>,
    ratings: BufWriter<File>,
    types: BufWriter<File>,
}

impl Histories {
    pub fn in_memory(customers: usize) -> Self {
        Self::InMemory(vec![Customer::default(); customers])
    }

    /// # Errors
    /// The folder is not there, or the disk is full.
    pub fn on_disk(memory: Memory, customers: usize) -> Result<Self, Error> {
        let column = || Ok::<_, Error>(BufWriter::with_capacity(1 << 18, memory.file()?));
        let (items, times, ratings, types) = (column()?, column()?, column()?, column()?);
        let places = vec![(0, 0); customers];
        Ok(Self::OnDisk(Box::new(OnDisk { memory, places, events: 0, items, times, ratings, types })))
    }

    /// The next event of a customer. On disk all of one customer come one after the other.
    ///
    /// # Errors
    /// The disk is full.
    pub fn push(&mut self, customer: u32, item: u32, time: i64, rating: f32, kind: u16) -> Result<(), Error> {
        match self {
            Self::InMemory(customers) => {
                let customer = &mut customers[customer as usize];
                customer.items.push(item);
                customer.times.push(time);
                customer.ratings.push(rating);
                customer.types.push(kind);
                Ok(())
            }
            Self::OnDisk(to) => {
                let place = &mut to.places[customer as usize];
                if place.1 == 0 {
                    place.0 = to.events;
                }
                place.1 += 1;
                to.events += 1;
                to.items
                    .write_all(&item.to_ne_bytes())
                    .and_then(|()| to.times.write_all(&time.to_ne_bytes()))
                    .and_then(|()| to.ratings.write_all(&rating.to_ne_bytes()))
                    .and_then(|()| to.types.write_all(&kind.to_ne_bytes()))
                    .map_err(Error::file(&to.memory.folder))
            }
        }
    }

    /// The customers in the order of their numbers.
    ///
    /// # Errors
    /// The disk is full, or the files cannot be mapped.
    pub fn finish(self) -> Result<Vec<Customer>, Error> {
        match self {
            Self::InMemory(customers) => Ok(customers),
            Self::OnDisk(on_disk) => on_disk.finish(),
        }
    }
}

impl OnDisk {
    fn finish(self) -> Result<Vec<Customer>, Error> {
        fn mapped<T: Plain>(column: BufWriter<File>, memory: &Memory) -> Result<std::sync::Arc<Mapped<T>>, Error> {
            let file = column.into_inner().map_err(std::io::IntoInnerError::into_error);
            file.and_then(|file| Mapped::of(&file)).map_err(Error::file(&memory.folder))
        }
        let (items, times) = (mapped(self.items, &self.memory)?, mapped(self.times, &self.memory)?);
        let (ratings, types) = (mapped(self.ratings, &self.memory)?, mapped(self.types, &self.memory)?);
        let customer = |&(from, count): &(usize, usize)| {
            let range = || from..from + count;
            Customer {
                items: Column::mapped(&items, range()),
                times: Column::mapped(&times, range()),
                ratings: Column::mapped(&ratings, range()),
                types: Column::mapped(&types, range()),
            }
        };
        Ok(self.places.iter().map(customer).collect())
    }
}
