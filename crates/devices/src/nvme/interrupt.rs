//! Interrupts: MSI-X, or the pin (NVM Express 1.4, 7.5).

use pci::{DmaBus, MsixTable, Status, regs};

use super::Nvme;

impl Nvme {
    pub(super) fn uses_messages(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.enabled(&self.config))
    }

    pub(super) fn vectors(&self) -> u32 {
        self.msix.as_ref().map_or(1, MsixTable::vectors)
    }

    /// Tells of new completions, once per queue.
    pub(super) fn signal(&mut self, bus: &mut dyn DmaBus) {
        let messages = self.uses_messages();
        for cq in self.completions.iter_mut().flatten() {
            if !cq.unsignalled {
                continue;
            }
            cq.unsignalled = false;
            if let (true, Some(vector), Some(msix)) = (messages, cq.vector, &mut self.msix) {
                // A write the bus refuses is a lost interrupt; the bus reports it.
                let _ = msix.fire(&self.config, vector.into(), bus);
            }
        }
        self.update_line(bus);
    }

    /// The pin (7.5.1): asserted while completions wait in a queue whose interrupt is not masked.
    pub(super) fn update_line(&mut self, bus: &mut dyn DmaBus) {
        let messages = self.uses_messages();
        if messages && !self.line {
            return;
        }
        let masked = self.regs.masked;
        let wanted = !messages
            && self.completions.iter().flatten().any(|cq| {
                let bit = cq.vector.map_or(0, |v| 1_u32.checked_shl(v.into()).unwrap_or(0));
                cq.filled() != 0 && bit & !masked != 0
            });
        if wanted != self.line {
            self.line = wanted;
            self.show_line();
            bus.set_intx(wanted);
        }
    }

    /// The status register's view of the pin.
    pub(super) fn show_line(&mut self) {
        let mut status = Status::from_bits_retain(self.config.u16(regs::STATUS));
        status.set(Status::INTERRUPT, self.line);
        self.config.set_u16(regs::STATUS, status.bits());
    }
}
