//! What a controller did: a report's raw material.

/// Counters since the controller was built; they stop at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmeStats {
    /// Commands of the admin queue.
    pub admin_commands: u64,
    /// Read and Compare commands that succeeded.
    pub reads: u64,
    /// Write commands that succeeded.
    pub writes: u64,
    /// Flush, Write Zeroes and Dataset Management commands that succeeded.
    pub others: u64,
    /// Bytes that Read and Compare commands asked for.
    pub bytes_read: u64,
    /// Bytes that Write commands brought.
    pub bytes_written: u64,
    /// Commands that failed, of any queue.
    pub errors: u64,
    /// Of these, failures of the storage.
    pub media_errors: u64,
    /// Of these, transfers that the bus aborted.
    pub transfer_errors: u64,
    /// Doorbell writes that were wrong and ignored.
    pub bad_doorbells: u64,
    /// Resets of the controller, of the function, too.
    pub resets: u64,
}

impl NvmeStats {
    pub(super) const fn add(counter: &mut u64, amount: u64) {
        *counter = counter.saturating_add(amount);
    }
}
