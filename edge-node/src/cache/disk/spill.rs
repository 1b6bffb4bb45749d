//! A body on its way to disk while it arrives: slice by slice, with a few on the way at a time, so that it need not fit in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Shared;
use super::body::DiskBody;
use super::queue::Order;
use super::record::BODY_BYTES_MAX;
use super::slice::Slicer;
use crate::limits::{DISK_FINISH_WAIT, DISK_SLICE_WAIT, DISK_SLICES_IN_FLIGHT_MAX};
use crate::metrics::RouteCounters;

/// A body that is being written.
pub struct Spill {
    shared: Arc<Shared>,
    body: u64,
    /// Where it is counted if it has to go.
    route: Option<Arc<RouteCounters>>,
    slicer: Slicer,
    /// The number of the next slice.
    number: u32,
    /// Slices that the writer has not answered for, oldest first.
    in_flight: VecDeque<oneshot::Receiver<bool>>,
    /// Slices that are written.
    written: u32,
    len: u64,
}

/// The disk does not keep up, or fails.
#[derive(Debug, Clone, Copy)]
pub struct TooSlow;

impl Spill {
    pub(super) fn new(shared: Arc<Shared>, route: Option<Arc<RouteCounters>>) -> Self {
        let body = Shared::random();
        Self { shared, body, route, slicer: Slicer::default(), number: 0, in_flight: VecDeque::new(), written: 0, len: 0 }
    }

    /// Takes the next bytes. Waits a little where the disk is slower than the bytes come; cancelling it loses the body.
    pub async fn push(&mut self, mut bytes: Bytes) -> Result<(), TooSlow> {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if let Some(slice) = self.slicer.take(&mut bytes) {
                self.send(slice).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, mut pieces: Vec<Bytes>) -> Result<(), TooSlow> {
        while self.in_flight.len() >= DISK_SLICES_IN_FLIGHT_MAX {
            self.oldest().await?;
        }
        loop {
            let (done, told) = oneshot::channel();
            let (body, number, route) = (self.body, self.number, self.route.clone());
            match self.shared.queue.push(Order::Slice { body, number, pieces, route, done }) {
                Ok(_) => {
                    self.in_flight.push_back(told);
                    self.number = self.number.checked_add(1).ok_or(TooSlow)?;
                    return Ok(());
                }
                // Others fill the queue: room comes when ours is done, at the latest.
                Err(refused) if !self.in_flight.is_empty() => {
                    pieces = refused.into_pieces();
                    self.oldest().await?;
                }
                Err(_) => {
                    self.shared.metrics.disk.skipped_queue.add(1);
                    return Err(TooSlow);
                }
            }
        }
    }

    /// Waits for the oldest slice on the way.
    async fn oldest(&mut self) -> Result<(), TooSlow> {
        let Some(told) = self.in_flight.front_mut() else { return Ok(()) };
        let written = tokio::time::timeout(DISK_SLICE_WAIT, told).await.is_ok_and(|told| told == Ok(true));
        self.in_flight.pop_front();
        self.written += u32::from(written);
        if written { Ok(()) } else { Err(TooSlow) }
    }

    /// What of it is on disk already: its first slices.
    pub fn begin(&mut self) -> DiskBody {
        while let Some(Ok(true)) = self.in_flight.front_mut().map(oneshot::Receiver::try_recv) {
            self.in_flight.pop_front();
            self.written += 1;
        }
        DiskBody::new(self.shared.clone(), self.body, u64::from(self.written) * BODY_BYTES_MAX as u64)
    }

    /// Writes the rest; gives the body once all of it is on disk.
    pub async fn finish(mut self) -> Result<DiskBody, TooSlow> {
        let finish = async {
            if let Some(slice) = self.slicer.rest() {
                self.send(slice).await?;
            }
            while !self.in_flight.is_empty() {
                self.oldest().await?;
            }
            Ok(())
        };
        tokio::time::timeout(DISK_FINISH_WAIT, finish).await.map_err(|_| TooSlow)??;
        let body = DiskBody::new(self.shared, self.body, self.len);
        // Some of it may have been evicted while the rest came.
        if body.is_there() { Ok(body) } else { Err(TooSlow) }
    }
}
