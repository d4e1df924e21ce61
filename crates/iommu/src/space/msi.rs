//! Doorbells: how devices of a group reach their interrupt controller.

use crate::event::Event;
use crate::pool::{Consumer, NoPage};
use crate::refusal::BindRefusal;
use crate::space::{AddressSpace, Env};
use crate::{Domain, Prot};

/// How devices of a group reach their doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// The bus address they write.
    pub iova: u64,
    /// The physical address it reaches.
    pub address: u64,
}

impl AddressSpace {
    /// The doorbell of `group`'s interrupt controller, for one set of interrupts that is being
    /// enabled. Where MSIs are translated its page is bound in the group's domain: once per page
    /// and domain, counted.
    ///
    /// With the window that Linux chooses, a page once bound stays as long as the domain.
    ///
    /// # Errors
    /// The group is not attached, or there is no window with room; nothing is bound then.
    pub fn bind_doorbell(
        &mut self,
        group: u32,
        env: &mut Env<'_>,
    ) -> Result<Doorbell, BindRefusal> {
        let page_size = self.page_size;
        let member = self.domain_of(group).and_then(|d| d.member(group));
        let Some(address) = member.map(|m| m.doorbell) else {
            return Err(BindRefusal::NotAttached { group });
        };
        let own = |d: &&mut Domain| d.member(group).is_some() || planted!(DomainsShareAPool);
        let found = self.domains.iter_mut().find(own);
        let Some(domain) = found else { return Err(BindRefusal::NotAttached { group }) };
        let Some(pool) = domain.pool_mut() else { return Ok(Doorbell { iova: address, address }) };
        let offset = pool.offset(address);
        let page = address.wrapping_sub(offset);
        let page = if planted!(DoorbellBoundTwice) { address } else { page };
        match pool.bind(Consumer::MSI, page) {
            Ok(slot) => {
                if let Some(member) = domain.member_mut(group) {
                    member.enabled = member.enabled.saturating_add(1);
                }
                if slot.references == 1 {
                    let event = Event::DoorbellBound { group, doorbell: page, iova: slot.iova };
                    env.observer.event(&event);
                }
                Ok(Doorbell { iova: slot.iova | offset, address })
            }
            Err(missing) => Err(no_page(domain, group, page_size, missing)),
        }
    }

    /// Gives back what [`bind_doorbell`](Self::bind_doorbell) gave, once for each time. What the
    /// group did not get it cannot give back: other groups keep their bindings.
    pub fn release_doorbell(&mut self, group: u32, env: &mut Env<'_>) {
        let found = self.domains.iter_mut().find(|d| d.member(group).is_some());
        let Some(domain) = found else { return };
        let Some(member) = domain.member_mut(group) else { return };
        if member.enabled == 0 && !planted!(SurplusReleaseCounts) {
            return;
        }
        member.enabled = member.enabled.saturating_sub(1);
        let address = member.doorbell;
        let Some(pool) = domain.user_pool_mut() else { return };
        let page = address.wrapping_sub(pool.offset(address));
        if pool.release(Consumer::MSI, page) {
            env.observer.event(&Event::DoorbellReleased { group, doorbell: page });
        }
    }

    /// Doorbell pages that the attached devices can need: distinct pages of a domain, the largest
    /// number over domains whose users register windows.
    #[must_use]
    pub fn doorbell_pages_needed(&self) -> u32 {
        let translating = self.domains.iter().filter(|d| d.max_windows().is_some());
        translating.map(|d| needed(d, self.page_size)).max().unwrap_or(0)
    }
}

fn needed(domain: &Domain, page_size: u64) -> u32 {
    u32::try_from(domain.doorbell_pages(page_size).len()).unwrap_or(u32::MAX)
}

fn no_page(domain: &Domain, group: u32, page_size: u64, missing: NoPage) -> BindRefusal {
    let needed = needed(domain, page_size);
    let windows = || domain.pool().into_iter().flat_map(crate::Pool::windows);
    let pages_of = |range: crate::IovaRange| range.size().checked_div(page_size).unwrap_or(0);
    match (missing, domain.max_windows()) {
        (NoPage::NoWindow, _) => BindRefusal::NoWindow { group, needed },
        (NoPage::NotPermitted, _) => BindRefusal::NoWritableWindow { needed },
        (NoPage::Full, None) => match windows().next() {
            Some(w) => BindRefusal::WindowFull { window: w.range, pages: pages_of(w.range) },
            None => BindRefusal::NoWindow { group, needed },
        },
        (NoPage::Full, Some(_)) => {
            let ours = windows().filter(|w| w.consumer == Consumer::MSI);
            let writable = ours.filter(|w| w.prot.contains(Prot::WRITE));
            let pages = writable.map(|w| pages_of(w.range)).fold(0, u64::saturating_add);
            BindRefusal::WindowsFull { pages, needed }
        }
    }
}
