//! Who has what that is no address: groups in containers, open devices, enabled interrupts.

use serde_json::Value;
use trace::Outcome;
use vfio::Refusal;
use vfio::device::{DeviceRefusal, IrqRefusal};

use super::request::{has_flag, number};

/// What a request took and nobody has given back.
#[derive(Debug)]
struct Taken {
    what: What,
    /// The slots `c`, `g` and `d` of the request.
    slots: [u64; 3],
    /// How the request calls it: a device, a kind of interrupt.
    name: String,
    request: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Iommu,
    Group,
    Membership,
    Device,
    Interrupts,
    Unmask,
}

impl What {
    /// The slot that it lives in.
    const fn slot(self) -> usize {
        match self {
            Self::Iommu => C,
            Self::Group | Self::Membership => G,
            Self::Device | Self::Interrupts | Self::Unmask => D,
        }
    }

    const fn says(self) -> &'static str {
        match self {
            Self::Iommu => "the IOMMU of the container",
            Self::Group => "the open group",
            Self::Membership => "the group in its container",
            Self::Device => "an open device",
            Self::Interrupts => "enabled interrupts",
            Self::Unmask => "the unmask eventfd",
        }
    }
}

/// What requests took and have not given back.
#[derive(Debug, Default)]
pub(crate) struct Holders(Vec<Taken>);

const C: usize = 0;
const G: usize = 1;
const D: usize = 2;

fn slots(outcome: &Outcome) -> [u64; 3] {
    ["c", "g", "d"].map(|member| number(outcome, member).unwrap_or(0))
}

fn text(outcome: &Outcome, member: &str, default: &str) -> String {
    match outcome.member(member) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => default.to_owned(),
    }
}

impl Holders {
    /// Takes note of a request that was carried out.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        if outcome.why.is_some() {
            return;
        }
        let own = slots(outcome);
        match outcome.op() {
            "open_container" => self.0.retain(|t| t.what != What::Iommu || t.slots[C] != own[C]),
            "set_iommu" => self.take(What::Iommu, String::new(), outcome),
            "open_group" => {
                self.0.retain(|t| t.what.slot() != G || t.slots[G] != own[G]);
                self.take(What::Group, text(outcome, "dev", "edu"), outcome);
            }
            "set_container" => self.take(What::Membership, String::new(), outcome),
            "unset_container" => self.drop(What::Membership, own),
            "get_device_fd" => {
                self.0.retain(|t| t.what.slot() != D || t.slots[D] != own[D]);
                self.take(What::Device, text(outcome, "dev", "edu"), outcome);
            }
            "set_irqs" => self.interrupts(outcome, own),
            "close" => self.close(&text(outcome, "fd", "c0")),
            _ => {}
        }
    }

    fn interrupts(&mut self, outcome: &Outcome, own: [u64; 3]) {
        let name = text(outcome, "index", "intx");
        // The error and the request interrupt stand beside the others.
        if matches!(&*name, "err" | "req" | "3" | "4") {
            return;
        }
        let events = has_flag(outcome, "data_eventfd", 4);
        let trigger = has_flag(outcome, "action_trigger", 32);
        if events && trigger {
            // A positive answer is how many vectors could be had: nothing is enabled.
            if outcome.got.get("ret") == Some(&0.into()) {
                self.drop(What::Interrupts, own);
                self.take(What::Interrupts, name, outcome);
            }
        } else if events {
            self.drop(What::Unmask, own);
            self.take(What::Unmask, name, outcome);
        } else if trigger && number(outcome, "count").unwrap_or(0) == 0 && !outcome.has("data") {
            self.drop(What::Interrupts, own);
            self.drop(What::Unmask, own);
        }
    }

    fn take(&mut self, what: What, name: String, outcome: &Outcome) {
        self.0.push(Taken { what, slots: slots(outcome), name, request: outcome.request });
    }

    fn drop(&mut self, what: What, own: [u64; 3]) {
        self.0.retain(|t| t.what != what || t.slots[what.slot()] != own[what.slot()]);
    }

    fn close(&mut self, word: &str) {
        let Some((kind, number)) = word.split_at_checked(1) else { return };
        let number = number.parse().unwrap_or(0);
        // A group stays where it is while a device of it is open; a container while a group is in it.
        if kind == "d" {
            self.0.retain(|t| t.what.slot() != D || t.slots[D] != number);
        }
        let open = |g| self.0.iter().any(|t| t.what == What::Device && t.slots[G] == g);
        if kind == "g" && !open(number) {
            self.0.retain(|t| t.what.slot() != G || t.slots[G] != number);
        }
    }

    /// Whoever has what a refused request wanted: what, and since which request.
    pub(super) fn in_the_way(&self, outcome: &Outcome, refusal: &Refusal) -> Vec<(String, u64)> {
        let what = match refusal {
            Refusal::IommuAlreadySet => What::Iommu,
            Refusal::HasContainer(_) => What::Membership,
            Refusal::GroupOpen(_) => What::Group,
            Refusal::DevicesOpen { .. } => What::Device,
            Refusal::Device(DeviceRefusal::Irq(
                IrqRefusal::OtherEnabled { .. } | IrqRefusal::BeyondEnabled { .. },
            )) => What::Interrupts,
            Refusal::Device(DeviceRefusal::Irq(IrqRefusal::UnmaskTaken)) => What::Unmask,
            _ => return Vec::new(),
        };
        let own = slots(outcome);
        // Devices are of the group that the request names; a group is found by its device.
        let mine = |t: &&Taken| match what {
            What::Group => t.name == text(outcome, "dev", "edu"),
            What::Device => t.slots[G] == own[G],
            _ => t.slots[what.slot()] == own[what.slot()],
        };
        let found = self.0.iter().filter(|t| t.what == what).filter(mine);
        found
            .map(|taken| match &*taken.name {
                "" => (what.says().to_owned(), taken.request),
                name => (format!("{} ({name})", what.says()), taken.request),
            })
            .collect()
    }
}
