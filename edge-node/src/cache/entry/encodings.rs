//! A stored response in other codings: made when a client first wants them, kept with it, gone with it.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use selvedge_origin::registry::Coding;

use super::super::coding::encode_fields;
use super::{Entry, Slot, StoredBody, StoredFields};

/// What came of giving a stored response a coding.
#[derive(Debug, Clone)]
pub enum Encoding {
    /// This response.
    Smaller(Arc<Entry>),
    /// Its bytes do not become fewer: it is sent as it is.
    NotSmaller,
}

impl Entry {
    /// What its bytes are in a coding; none where nobody has wanted that yet.
    pub fn encoding(&self, coding: Coding) -> Option<&Encoding> {
        self.encodings.iter().find(|(other, _)| *other == coding).map(|(_, encoding)| encoding)
    }

    /// This response in a coding: with these coded bytes, or as a head whose body comes from elsewhere.
    pub fn coded(&self, coding: Coding, body: Option<StoredBody>) -> Self {
        let mut headers = self.fields.to_map(3);
        encode_fields(&mut headers, coding);
        if let Some(body) = &body {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        self.like(StoredFields::new(&headers, &[]), body.unwrap_or_default())
    }

    /// This response and what its bytes are in one more coding.
    fn with_encoding(&self, coding: Coding, encoding: &Encoding) -> Self {
        let others = self.encodings.iter().filter(|(other, _)| *other != coding).cloned();
        let encodings = others.chain([(coding, encoding.clone())]).collect();
        Self { encodings, ..self.like(self.fields.clone(), self.body.clone()) }
    }

    /// One with these fields and bytes, in no other coding, and like this one in all else.
    pub(super) fn like(&self, fields: StoredFields, body: StoredBody) -> Self {
        Self {
            status: self.status,
            fields,
            foreign_status: self.foreign_status,
            body,
            part: self.part.clone(),
            control: self.control,
            freshness: self.freshness,
            variant: self.variant.clone(),
            purgeable: self.purgeable.clone(),
            encodings: Box::default(),
            counters: self.counters.clone(),
        }
    }

    /// This response, which has the bytes of `other`: the same bytes are the same bytes in every coding.
    pub(super) fn with_encodings_of(mut self, other: &Self) -> Self {
        let again = |(coding, encoding): &(Coding, Encoding)| match encoding {
            Encoding::Smaller(coded) => (*coding, Encoding::Smaller(Arc::new(self.coded(*coding, Some(coded.body.clone()))))),
            Encoding::NotSmaller => (*coding, Encoding::NotSmaller),
        };
        self.encodings = other.encodings.iter().map(again).collect();
        self
    }

    /// Bytes that they take.
    pub(super) fn encodings_weight(&self) -> usize {
        // One more block, where there is any.
        let own = if self.encodings.is_empty() { 0 } else { size_of_val(&*self.encodings) + 32 };
        self.encodings.iter().fold(own, |sum, (_, encoding)| match encoding {
            Encoding::Smaller(coded) => sum.saturating_add(coded.weight()),
            Encoding::NotSmaller => sum,
        })
    }
}

impl Slot {
    /// The entry of these bytes, if it is still here.
    pub fn of(&self, body: &StoredBody) -> Option<&Arc<Entry>> {
        self.variants().iter().find(|entry| entry.body.is(body))
    }

    /// This slot, in which the entry of these bytes knows one more coding; the same slot where they are gone.
    pub fn with_encoding(&self, body: &StoredBody, coding: Coding, encoding: &Encoding) -> Self {
        let knowing = |entry: &Arc<Entry>| match entry.body.is(body) {
            true => Arc::new(entry.with_encoding(coding, encoding)),
            false => entry.clone(),
        };
        Self::new(self.variants().iter().map(knowing), self.uncollapsed_until())
    }
}
