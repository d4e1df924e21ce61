//! MSI and MSI-X: vectors, each with an eventfd or none.
//!
//! * Enabling takes vectors `0..start+count` at once and binds the controller's doorbell; the
//!   eventfds come after, and if one is bad nothing stays enabled.
//! * On an update of enabled vectors, every vector from the first to the failing one loses its
//!   eventfd; those after it keep theirs.
//! * A vector without eventfd is masked in the function, as the host masks a vector without
//!   handler.
//! * The data of a vector is its number: controllers keep devices apart, so that each device has
//!   event ids of its own.

use alloc::vec;
use alloc::vec::Vec;

use iommu::Doorbell;

use super::function::{self, MsiKind};
use super::request::{Action, Data, Request};
use super::{IrqEnv, IrqRefusal, Irqs, Mode, get_event};
use crate::{EventId, Platform};

/// One vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vector {
    /// The interrupt controller was not asked for it.
    Absent,
    /// It exists; nobody listens.
    Idle,
    /// It signals an eventfd.
    Live(EventId),
}

/// MSI or MSI-X, enabled.
#[derive(Debug)]
pub(super) struct Vectors {
    /// Which.
    pub(super) kind: MsiKind,
    /// The address that the function writes, and the one it reaches.
    doorbell: Doorbell,
    /// By number. Grows only as far as the function's table.
    vectors: Vec<Vector>,
}

impl Vectors {
    /// The eventfds it holds.
    pub(super) fn events(&self) -> impl Iterator<Item = EventId> {
        self.vectors.iter().filter_map(|v| match v {
            Vector::Live(event) => Some(*event),
            _ => None,
        })
    }

    fn get(&self, vector: u32) -> Vector {
        index(vector).and_then(|i| self.vectors.get(i)).copied().unwrap_or(Vector::Absent)
    }

    /// Vectors up to the last that exists.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.vectors.len()).unwrap_or(u32::MAX)
    }

    /// Vectors that exist.
    pub(super) fn used(&self) -> u32 {
        let used = self.vectors.iter().filter(|v| **v != Vector::Absent).count();
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    fn put(&mut self, vector: u32, value: Vector) {
        let Some(i) = index(vector) else { return };
        if let Some(slot) = self.vectors.get_mut(i) {
            *slot = value;
        } else {
            self.vectors.resize(i, Vector::Absent);
            self.vectors.push(value);
        }
    }

    /// Takes the eventfd of a vector away.
    fn silence(&mut self, env: &mut IrqEnv<'_>, vector: u32) {
        if let Vector::Live(event) = self.get(vector) {
            function::mask_vector(env.model, self.kind, vector);
            env.caller.put_event(event);
            self.put(vector, Vector::Idle);
        }
    }

    /// Gives a vector another eventfd; a negative `fd` gives it none.
    fn set(&mut self, env: &mut IrqEnv<'_>, vector: u32, fd: i32) -> Result<(), IrqRefusal> {
        self.silence(env, vector);
        if fd < 0 {
            return Ok(());
        }
        if self.get(vector) == Vector::Absent {
            self.add(env, vector)?;
        }
        let event = get_event(env.caller, fd)?;
        self.put(vector, Vector::Live(event));
        let missed = function::unmask_vector(env.model, self.kind, vector, self.doorbell.iova);
        if missed {
            env.caller.signal(event);
        }
        Ok(())
    }

    /// Adds a vector to enabled MSI-X. It stays until MSI-X is disabled.
    fn add(&mut self, env: &mut IrqEnv<'_>, vector: u32) -> Result<(), IrqRefusal> {
        if self.kind != MsiKind::Msix || !env.msix_grows() {
            return Err(self.beyond(vector));
        }
        if env.vectors_left == 0 {
            return Err(IrqRefusal::NoVectorsLeft);
        }
        env.take_vectors(1);
        self.put(vector, Vector::Idle);
        Ok(())
    }

    fn beyond(&self, vector: u32) -> IrqRefusal {
        let index = self.kind.index();
        IrqRefusal::BeyondEnabled { index, vector, enabled: self.len() }
    }

    /// Where the dialect checks the range first: whether all of it is enabled.
    fn check_range(&self, env: &IrqEnv<'_>, request: &Request) -> Result<(), IrqRefusal> {
        let end = request.start.saturating_add(request.count);
        if env.dialect.irq_range_checked_first && end > self.len() {
            return Err(self.beyond(self.len()));
        }
        Ok(())
    }

    /// Gives each vector from `request.start` the eventfd of its descriptor.
    fn set_all(
        &mut self,
        env: &mut IrqEnv<'_>,
        request: &Request,
        fds: &[i32],
    ) -> Result<(), IrqRefusal> {
        if env.dialect.irq_range_checked_first && request.start >= self.len() {
            return Err(self.beyond(request.start));
        }
        self.check_range(env, request)?;
        for (vector, fd) in (request.start..).zip(fds) {
            if let Err(refusal) = self.set(env, vector, *fd) {
                for vector in request.start..=vector {
                    self.silence(env, vector);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Loopback: signals as if the function had.
    fn loop_back(&self, env: &mut IrqEnv<'_>, request: &Request) -> Result<(), IrqRefusal> {
        self.check_range(env, request)?;
        let first = index(request.start).unwrap_or(usize::MAX);
        let count = index(request.count).unwrap_or(usize::MAX);
        for (i, vector) in self.vectors.iter().skip(first).take(count).enumerate() {
            if let Vector::Live(event) = vector
                && request.wants(i)
            {
                env.caller.signal(*event);
            }
        }
        Ok(())
    }

    /// Programs the function anew, from nothing: after a reset.
    pub(super) fn restore(
        &self,
        model: &mut dyn pci::Device,
        platform: &mut dyn Platform,
        line: &mut bool,
    ) {
        function::enable_msi(model, self.kind, self.doorbell.iova, self.len(), line);
        for (number, vector) in (0..).zip(&self.vectors) {
            if let Vector::Live(event) = vector
                && function::unmask_vector(model, self.kind, number, self.doorbell.iova)
            {
                platform.signal(*event);
            }
        }
    }
}

impl Irqs {
    /// `SET_IRQS` of MSI or MSI-X.
    pub(super) fn set_msi(
        &mut self,
        env: &mut IrqEnv<'_>,
        request: &Request,
        kind: MsiKind,
    ) -> Result<i64, IrqRefusal> {
        if request.action != Some(Action::Trigger) {
            return Err(request.no_such_action());
        }
        self.no_other_mode(kind.index())?;
        let Mode::Msi(enabled) = &mut self.mode else {
            return match &request.data {
                Data::Events(fds) => self.enable_msi(env, request, kind, fds),
                _ => Err(IrqRefusal::NotEnabled(kind.index())),
            };
        };
        match &request.data {
            Data::None if request.count == 0 => self.disable(env),
            Data::Events(fds) => enabled.set_all(env, request, fds)?,
            _ => enabled.loop_back(env, request)?,
        }
        Ok(0)
    }

    /// Enables vectors `0..start+count`. Answers the number available when that is fewer.
    fn enable_msi(
        &mut self,
        env: &mut IrqEnv<'_>,
        request: &Request,
        kind: MsiKind,
        fds: &[i32],
    ) -> Result<i64, IrqRefusal> {
        let wanted = request.start.saturating_add(request.count);
        if wanted == 0 {
            return Err(IrqRefusal::NoVectors(kind.index()));
        }
        if !function::is_in_d0(env.model) {
            return Err(IrqRefusal::NotInD0);
        }
        let available = match kind {
            // Several MSI vectors are one block: all of it or a single one.
            MsiKind::Msi if wanted > 1 && (!env.multi_msi || env.vectors_left < wanted) => {
                env.vectors_left.min(1)
            }
            _ => env.vectors_left.min(wanted),
        };
        if available == 0 {
            return Err(IrqRefusal::NoVectorsLeft);
        }
        let doorbell = env.doorbells.bind().map_err(IrqRefusal::Doorbell)?;
        if available < wanted {
            env.doorbells.release();
            return Ok(i64::from(available));
        }
        env.take_vectors(wanted);
        // A function must not use its line while messages are on.
        self.line = false;
        function::enable_msi(env.model, kind, doorbell.iova, wanted, &mut self.line);
        let vectors = vec![Vector::Idle; index(wanted).unwrap_or(0)];
        let mut enabled = Vectors { kind, doorbell, vectors };
        let set = enabled.set_all(env, request, fds);
        self.mode = Mode::Msi(enabled);
        if let Err(refusal) = set {
            self.disable(env);
            return Err(refusal);
        }
        Ok(0)
    }

    /// An MSI of the function arrived: it wrote `data`, and the write reached the doorbell at
    /// physical address `address`. Signals the vector's eventfd; a vector without one swallows
    /// the interrupt.
    ///
    /// `false` when the function has no such vector, or has it at another doorbell: nothing was
    /// signalled, and the write is a fault
    /// ([`UnknownVector`](iommu::FaultReason::UnknownVector)).
    pub fn deliver_msi(&mut self, address: u64, data: u32, platform: &mut dyn Platform) -> bool {
        let Mode::Msi(enabled) = &self.mode else { return false };
        if enabled.doorbell.address != address {
            return false;
        }
        match enabled.get(data) {
            Vector::Absent => false,
            Vector::Idle => true,
            Vector::Live(event) => {
                platform.signal(event);
                true
            }
        }
    }
}

fn index(vector: u32) -> Option<usize> {
    usize::try_from(vector).ok()
}
