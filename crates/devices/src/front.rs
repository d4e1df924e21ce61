//! For tests: a front end that shows registers as plain memory, to the letter of `pci::Polled`.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Deref;

use pci::{Device, DmaBus};

/// Words of a page.
const WORDS: usize = 1024;

/// A device, its bus, and the polled pages of BAR0.
pub(crate) struct Front<D, B> {
    pub(crate) device: D,
    pub(crate) bus: B,
    pages: Vec<Page>,
    changes: u64,
}

/// A page as software sees it, and as the front end saw it last.
struct Page {
    number: u64,
    shown: Vec<u32>,
    seen: Vec<u32>,
}

impl<D: Device, B: DmaBus> Front<D, B> {
    pub(crate) fn new(device: D, bus: B) -> Self {
        let numbers = (0..4).filter(|page| device.polled(0, *page).is_some());
        let page = |number| Page { number, shown: vec![0; WORDS], seen: vec![0; WORDS] };
        let pages = numbers.map(page).collect();
        let changes = device.polled_changes().wrapping_sub(1);
        let mut front = Self { device, bus, pages, changes };
        front.copy_back();
        front
    }

    /// Shows what changed; not where software wrote meanwhile.
    pub(crate) fn copy_back(&mut self) {
        let before = core::mem::replace(&mut self.changes, self.device.polled_changes());
        let moved = before != self.changes;
        for page in &mut self.pages {
            for at in self.device.polled(0, page.number).unwrap().words.step_by(4) {
                let index = usize::from(at) / 4;
                let mut word = [0; 4];
                let offset = page.number * 4096 + u64::from(at);
                self.device.bar_read(0, offset, &mut word, &mut self.bus);
                let word = u32::from_le_bytes(word);
                if word != page.seen[index] {
                    assert!(moved, "{offset:#x} changed and nobody was told");
                    if page.shown[index] == page.seen[index] {
                        (page.shown[index], page.seen[index]) = (word, word);
                    }
                }
            }
        }
    }

    /// Hands over what software wrote.
    pub(crate) fn replay(&mut self) {
        for page in &mut self.pages {
            let polled = self.device.polled(0, page.number).unwrap();
            let last = |at: &u16| polled.last.contains(at);
            let order = polled.writable.clone().step_by(4).filter(|at| !last(at));
            for at in order.chain(polled.last.iter().copied()) {
                let index = usize::from(at) / 4;
                let word = page.shown[index];
                if word != page.seen[index] {
                    page.seen[index] = word;
                    let offset = page.number * 4096 + u64::from(at);
                    self.device.bar_write(0, offset, &word.to_le_bytes(), &mut self.bus);
                }
            }
        }
        self.copy_back();
    }

    /// Looks once, and lets the device do what it can; `after` sees each step from outside.
    pub(crate) fn poll(&mut self, mut after: impl FnMut(&mut Self)) {
        self.replay();
        for _ in 0..1000 {
            let more = self.device.run(&mut self.bus);
            after(self);
            self.copy_back();
            if !more {
                return;
            }
        }
        panic!("never done");
    }

    /// A store by software; nobody hears of it.
    pub(crate) fn store(&mut self, offset: usize, size: usize, value: u64) {
        let page = self.pages.iter_mut().find(|page| page.number == offset as u64 / 4096);
        let shown = &mut page.expect("a polled page").shown;
        for (i, byte) in value.to_le_bytes()[..size].iter().enumerate() {
            let (index, shift) = ((offset + i) % 4096 / 4, (offset + i) % 4 * 8);
            shown[index] = shown[index] & !(0xff << shift) | u32::from(*byte) << shift;
        }
    }

    /// A load by software.
    pub(crate) fn load(&self, offset: usize) -> u32 {
        let page = self.pages.iter().find(|page| page.number == offset as u64 / 4096);
        page.expect("a polled page").shown.deref()[offset % 4096 / 4]
    }
}
