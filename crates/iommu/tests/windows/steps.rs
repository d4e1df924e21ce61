//! What can be done, chosen by numbers that mean something in any state, so that sequences shrink.

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::strategy::Just;
use softvfio_iommu::{
    AttachRefusal, BindRefusal, Consumer, Doorbell, IovaRange, LockBudget, MapRefusal, MapRequest,
    MmId, Prot, Window, WindowRefusal,
};

use super::lab::{BAD, Lab, RW};
use super::model::Model;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Add,
    Remove,
    RemoveAll,
    Map,
    Unmap,
    Exact,
    UnmapAll,
    Attach,
    Detach,
    Enable,
    Disable,
    Close,
}

pub(crate) const KINDS: [Kind; 12] = [
    Kind::Add,
    Kind::Remove,
    Kind::RemoveAll,
    Kind::Map,
    Kind::Unmap,
    Kind::Exact,
    Kind::UnmapAll,
    Kind::Attach,
    Kind::Detach,
    Kind::Enable,
    Kind::Disable,
    Kind::Close,
];

/// A kind and choices.
pub(crate) type Step = (Kind, [u8; 6]);

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        20 => Just(Kind::Add),
        12 => Just(Kind::Remove),
        3 => Just(Kind::RemoveAll),
        12 => Just(Kind::Map),
        6 => Just(Kind::Unmap),
        5 => Just(Kind::Exact),
        3 => Just(Kind::UnmapAll),
        16 => Just(Kind::Attach),
        6 => Just(Kind::Detach),
        20 => Just(Kind::Enable),
        9 => Just(Kind::Disable),
        2 => Just(Kind::Close),
    ];
    (kind, any::<[u8; 6]>())
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Add(Window),
    Remove(IovaRange),
    RemoveAll,
    Map(IovaRange, u64),
    Unmap(IovaRange),
    Exact(IovaRange),
    UnmapAll,
    Attach(u32),
    Detach(u32),
    Enable(u32),
    Disable(u32),
    Close,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Add(Result<(), WindowRefusal>),
    Remove(Result<bool, WindowRefusal>),
    RemoveAll(Result<u64, WindowRefusal>),
    Map(Result<(), MapRefusal>),
    Unmap(Result<u64, IovaRange>),
    Existed(bool),
    Attach(Result<(), AttachRefusal>),
    Enable(Result<Doorbell, BindRefusal>),
    Done,
}

impl Answer {
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Add(r) => r.is_err(),
            Self::Remove(r) => r.is_err(),
            Self::RemoveAll(r) => r.is_err(),
            Self::Map(r) => r.is_err(),
            Self::Unmap(r) => r.is_err(),
            Self::Attach(r) => r.is_err(),
            Self::Enable(r) => r.is_err(),
            Self::Existed(_) | Self::Done => false,
        }
    }
}

/// What a sequence leans towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Usual,
    /// Room for fewer doorbells than there are.
    Poor,
    /// Windows first, groups that may not suit them later.
    Late,
    /// Groups with the driver's own window.
    Fixed,
}

pub(crate) fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        8 => Just(Mood::Usual),
        2 => Just(Mood::Poor),
        4 => Just(Mood::Late),
        2 => Just(Mood::Fixed),
    ]
}

/// What a step is in the state that the model has.
pub(crate) fn resolve((kind, by): Step, mood: Mood, model: &Model) -> Op {
    let usable = model.limit().is_some() || mood == Mood::Fixed && !model.domains.is_empty();
    let leans = by[5] % 2 == 0;
    match mood {
        Mood::Fixed if leans && by[4] < 128 => return attach(by, mood, model),
        Mood::Fixed if leans => return Op::Enable(who(by, model)),
        Mood::Poor if leans && !model.windows.is_empty() => {
            return if by[4] < 96 { attach(by, mood, model) } else { Op::Enable(who(by, model)) };
        }
        Mood::Late if leans && model.windows.len() > 2 => return attach(by, mood, model),
        _ => {}
    }
    match kind {
        // Where nothing takes windows nothing interesting happens.
        Kind::Map | Kind::Close => {}
        _ if !usable && by[5] % 4 != 0 => return attach(by, mood, model),
        Kind::Add if mood == Mood::Poor && !model.windows.is_empty() => {
            return Op::Enable(who(by, model));
        }
        _ => {}
    }
    match kind {
        Kind::Add => {
            let prot = match by[4] % 16 {
                0 => Prot::empty(),
                1..4 => Prot::READ,
                4..7 => Prot::WRITE,
                _ => RW,
            };
            let consumer = if by[4] >> 4 == 0 { Consumer(7) } else { Consumer::MSI };
            let range = match mood {
                Mood::Poor => place([200, by[1], 0, 0x10, 0, 0], model, Aim::Any),
                Mood::Late => {
                    let base = if by[5] < 64 { 110 } else { 140 };
                    place([base, by[1], 0, by[3], 0, 0], model, Aim::Any)
                }
                // Where group 1 reserves addresses.
                _ if by[5] < 16 => place([90, by[1], 0, by[3], 0, 0], model, Aim::Any),
                _ => place(by, model, Aim::Any),
            };
            Op::Add(Window { range, prot, consumer })
        }
        Kind::Remove => Op::Remove(place(by, model, Aim::of(by[5] % 5))),
        Kind::RemoveAll => Op::RemoveAll,
        Kind::Map => {
            let vaddr = if by[4] % 8 == 0 { BAD } else { 0x7000_0000 };
            Op::Map(place(by, model, Aim::of(by[5] % 4 + 3)), vaddr)
        }
        Kind::Unmap => Op::Unmap(place(by, model, Aim::of(by[5] % 3 + 3))),
        Kind::Exact => Op::Exact(place(by, model, Aim::of(by[5] % 6))),
        Kind::UnmapAll => Op::UnmapAll,
        Kind::Attach => attach(by, mood, model),
        Kind::Detach => Op::Detach(who(by, model)),
        Kind::Enable => Op::Enable(who(by, model)),
        Kind::Disable => {
            let live: Vec<u32> =
                model.domains.iter().flat_map(|d| d.enabled.iter().map(|e| e.group)).collect();
            let one = pick(&live, by[1]).copied().filter(|_| by[2] % 4 != 0);
            Op::Disable(one.unwrap_or_else(|| who(by, model)))
        }
        Kind::Close => Op::Close,
    }
}

fn attach(by: [u8; 6], mood: Mood, model: &Model) -> Op {
    let of: &[u32] = match (mood, by[0]) {
        (_, 250..) => &[99],
        (_, 240..) => &[1],
        (Mood::Poor, _) => &[1, 3, 4, 5, 12, 13],
        (Mood::Late, _) if model.limit().is_none() => &[1, 2, 12, 13],
        (Mood::Late, 0..160) if model.windows.len() > 2 => &[6, 6, 11],
        (Mood::Late, _) => &[1, 4, 12, 12],
        (Mood::Fixed, 0..200) => &[8, 9, 10],
        (_, 0..40) => &[7, 8, 9, 10],
        (_, 40..80) => &[6, 11],
        _ => &[1, 2, 3, 4, 5, 12, 13],
    };
    let again = model.attached();
    let group = if (240..250).contains(&by[0]) { pick(&again, by[1]) } else { None };
    Op::Attach(*group.or(pick(of, by[1])).expect("a group"))
}

fn who(by: [u8; 6], model: &Model) -> u32 {
    let attached = model.attached();
    match pick(&attached, by[1]) {
        Some(group) if by[0] < 245 => *group,
        _ => u32::from(by[1] % 14),
    }
}

fn pick<T>(of: &[T], by: u8) -> Option<&T> {
    of.get(usize::from(by).checked_rem(of.len())?)
}

/// What a range is chosen to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// A window, where there is one.
    Exact,
    /// On the edge of a window, where there is one.
    Near,
    Any,
}

impl Aim {
    const fn of(n: u8) -> Self {
        match n {
            0..3 => Self::Exact,
            3 => Self::Near,
            _ => Self::Any,
        }
    }
}

/// A range, near what is there.
fn place(by: [u8; 6], model: &Model, aim: Aim) -> IovaRange {
    let granule = model.granule();
    let windows: Vec<IovaRange> = model.sorted().iter().map(|w| w.range).collect();
    if let Some(window) = pick(&windows, by[1]).filter(|_| aim == Aim::Exact) {
        return *window;
    }
    let maps: Vec<IovaRange> = model.maps.iter().map(|m| m.0).collect();
    let near = |ranges: &[IovaRange]| {
        let range = pick(ranges, by[1])?;
        Some(match by[2] % 4 {
            0 => range.first(),
            1 => range.last() + 1,
            2 => range.first().saturating_sub(granule),
            _ => range.first() + range.size() / 2,
        })
    };
    let arena = 0x1000_0000 + u64::from(by[1] % 48) * granule;
    let first = match by[0] {
        _ if aim == Aim::Near => near(&windows),
        0..60 => near(&windows),
        60..80 => near(&maps),
        80..98 => Some(0x2000_0000 + u64::from(by[1] % 20) * granule),
        98..104 => Some(0xfee0_0000 + u64::from(by[1] % 2) * granule),
        104..120 => Some((1 << 40) + u64::from(by[1] % 8) * granule),
        120..130 => Some((1 << 50) + u64::from(by[1] % 2) * granule),
        130..140 => Some(0x800_0000 + u64::from(by[1] % 4) * granule),
        140..170 => Some(0x1010_0000 + u64::from(by[1] % 8) * 0x1_0000),
        _ => None,
    };
    let first = first.unwrap_or(arena) / granule * granule;
    let size = match by[3] % 16 {
        0..8 => granule,
        8..11 => 2 * granule,
        11..13 => 3 * granule,
        _ => granule.max(0x1_0000),
    };
    let (first, size) = match by[3] >> 3 {
        0 => (first + 0x800, size),
        1 => (first, size - 0x800),
        _ => (first, size),
    };
    IovaRange::sized(first, size).expect("far from the end")
}

impl Op {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Add(_) => Kind::Add,
            Self::Remove(_) => Kind::Remove,
            Self::RemoveAll => Kind::RemoveAll,
            Self::Map(..) => Kind::Map,
            Self::Unmap(_) => Kind::Unmap,
            Self::Exact(_) => Kind::Exact,
            Self::UnmapAll => Kind::UnmapAll,
            Self::Attach(_) => Kind::Attach,
            Self::Detach(_) => Kind::Detach,
            Self::Enable(_) => Kind::Enable,
            Self::Disable(_) => Kind::Disable,
            Self::Close => Kind::Close,
        }
    }
}

impl Model {
    pub(crate) fn carry_out(&mut self, op: Op) -> Answer {
        match op {
            Op::Add(window) => Answer::Add(self.add(window)),
            Op::Remove(range) => Answer::Remove(self.remove(range)),
            Op::RemoveAll => Answer::RemoveAll(self.remove_all()),
            Op::Map(range, vaddr) => Answer::Map(self.map(range, vaddr)),
            Op::Unmap(range) => Answer::Unmap(self.unmap(range)),
            Op::Exact(range) => {
                let found = self.maps.iter().position(|m| m.0 == range);
                Answer::Existed(found.map(|at| self.maps.remove(at)).is_some())
            }
            Op::UnmapAll => Answer::Unmap(Ok(self.maps.drain(..).map(|m| m.0.size()).sum())),
            Op::Attach(group) => Answer::Attach(self.attach(group)),
            Op::Detach(group) => Answer::Existed(self.detach(group)),
            Op::Enable(group) => Answer::Enable(self.enable(group)),
            Op::Disable(group) => {
                self.disable(group);
                Answer::Done
            }
            Op::Close => {
                self.attached().into_iter().for_each(|g| {
                    self.detach(g);
                });
                Answer::Done
            }
        }
    }
}

impl Lab {
    pub(crate) fn carry_out(&mut self, op: Op) -> Answer {
        self.on(|space, host, env| match op {
            Op::Add(window) => Answer::Add(space.add_window(window, env)),
            Op::Remove(range) => Answer::Remove(space.remove_window(range, env)),
            Op::RemoveAll => Answer::RemoveAll(space.remove_all_windows(env)),
            Op::Map(range, vaddr) => {
                let budget = LockBudget { mm: MmId(1), limit_pages: None };
                Answer::Map(space.map(&MapRequest { range, vaddr, prot: RW, budget }, env))
            }
            Op::Unmap(range) => {
                Answer::Unmap(space.cut_by(range).map_or_else(|| Ok(space.unmap(range, env)), Err))
            }
            Op::Exact(range) => Answer::Existed(space.unmap_exact(range, env)),
            Op::UnmapAll => Answer::Unmap(Ok(space.unmap(IovaRange::ALL, env))),
            Op::Attach(group) => Answer::Attach(space.attach(host, &host.limits, group, None, env)),
            Op::Detach(group) => Answer::Existed(space.detach(group, env)),
            Op::Enable(group) => Answer::Enable(space.bind_doorbell(group, env)),
            Op::Disable(group) => {
                space.release_doorbell(group, env);
                Answer::Done
            }
            Op::Close => {
                for group in host.groups.iter().rev() {
                    space.detach(group.number, env);
                }
                Answer::Done
            }
        })
    }
}
