//! One compressor for all who want the same bytes in the same coding at the same time: a fill of its own, whose source is what is stored or what is being fetched.

use std::sync::Arc;

use selvedge_origin::registry::Coding;
use selvedge_runtime::Body;

use super::super::RequestPath;
use super::super::lookup::Question;
use super::super::pump::{Room, idle_timeout, pump};
use super::super::route::Aim;
use super::body::Encoded;
use super::encoder::Encoder;
use crate::cache::coding::encode_head;
use crate::cache::collapse::{Duty, Obligation};
use crate::cache::entry::{Encoding, Entry, StoredBody};
use crate::cache::fill::{Fill, Head, Reader, StreamHead};
use crate::cache::keeping::Keeping;

/// A reader of the coded bytes of a stored body. None: no compressor is free.
pub(super) async fn of_entry(
    path: &Arc<RequestPath>,
    question: &Question,
    aim: &Aim,
    entry: &Arc<Entry>,
    coding: Coding,
) -> Option<Reader> {
    let (obligation, reader) = match path.cache().enter_encoding(address(entry), coding) {
        Duty::Refused(_) => return None,
        Duty::Follow(reader) => return matches!(reader.head().await, Head::Confirmed(..)).then_some(reader),
        Duty::Fetch(obligation, reader) => (obligation, reader),
    };
    let encoder = path.compressors().begin(coding, Some(entry.body.len()))?;
    obligation.tell(Head::Confirmed(entry.clone(), Keeping::Stored));
    begin(path, question, aim, obligation, Source::Entry(entry.clone()), (coding, encoder, entry.body.whole()));
    Some(reader)
}

/// Head and reader of the coded bytes of what is being fetched. Gives back the reader of the plain bytes where no compressor is free.
pub(super) async fn of_stream(
    path: &Arc<RequestPath>,
    question: &Question,
    aim: &Aim,
    stream: &Arc<StreamHead>,
    plain: Reader,
    coding: Coding,
) -> Result<(Arc<StreamHead>, Reader), Reader> {
    let (obligation, reader) = match path.cache().enter_encoding(address(stream), coding) {
        Duty::Refused(_) => return Err(plain),
        Duty::Follow(reader) => match reader.head().await {
            Head::Streaming(head) => return Ok((head, reader)),
            _ => return Err(plain),
        },
        Duty::Fetch(obligation, reader) => (obligation, reader),
    };
    let Some(encoder) = path.compressors().begin(coding, stream.length) else { return Err(plain) };
    let head = Arc::new(StreamHead {
        head: encode_head(&stream.head, coding),
        variant: stream.variant.clone(),
        withheld: Vec::new(),
        length: None,
        keeping: stream.keeping,
    });
    obligation.tell(Head::Streaming(head.clone()));
    let source = Source::Fill(stream.clone(), plain.fill());
    begin(path, question, aim, obligation, source, (coding, encoder, plain.into_body(stream.length)));
    Ok((head, reader))
}

/// Where the plain bytes come from. Held while they are compressed, so that its address stands for it and for nothing else.
enum Source {
    Entry(Arc<Entry>),
    Fill(#[allow(dead_code, reason = "held for its address")] Arc<StreamHead>, Arc<Fill>),
}

fn address<T>(source: &Arc<T>) -> usize {
    Arc::as_ptr(source) as usize
}

/// Compresses in a task that belongs to no client, and keeps what comes of it with the entry, if that is still stored.
fn begin(
    path: &Arc<RequestPath>,
    question: &Question,
    aim: &Aim,
    obligation: Obligation,
    source: Source,
    (coding, encoder, plain): (Coding, Encoder, Body),
) {
    let (path, key, bytes_max) = (path.clone(), question.key.clone(), aim.route.cache.entry_bytes_max);
    let tasks = path.tasks().clone();
    let idle_timeout = idle_timeout(aim);
    tasks.spawn(async move {
        let memory_bytes_max = path.cache().memory_entry_max(bytes_max);
        let room = Room { memory_bytes_max, bytes_max, length: None, disk: None, route: None, idle_timeout };
        let (read, held) = pump(&obligation, Encoded::body(plain, encoder), room).await;
        let entry = match &source {
            Source::Entry(entry) => Some(entry.clone()),
            Source::Fill(_, fill) => fill.stored(),
        };
        if let (Ok(coded_bytes), true, Some(entry)) = (&read, held.is_in_memory(), entry) {
            let encoding = if *coded_bytes < entry.body.len() {
                let body = path.cache().counted(StoredBody::new(&obligation.all_chunks()));
                Encoding::Smaller(Arc::new(entry.coded(coding, Some(body))))
            } else {
                Encoding::NotSmaller
            };
            path.cache().keep_encoding(key.as_bytes(), &entry, coding, &encoding);
        }
        obligation.end(read.map(|_| ()));
    });
}
