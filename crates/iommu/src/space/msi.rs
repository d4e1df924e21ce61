//! Doorbells: how devices of a group reach their interrupt controller.

use crate::event::Event;
use crate::refusal::BindRefusal;
use crate::space::{AddressSpace, Env};

impl AddressSpace {
    /// The bus address that devices of `group` must write to reach their interrupt controller's
    /// doorbell; binds its page in the group's domain where MSIs are translated.
    ///
    /// With the window that Linux chooses, a page once bound stays as long as the domain, so there
    /// is nothing to release.
    ///
    /// # Errors
    /// The group is not attached, or the window is full.
    pub fn bind_doorbell(&mut self, group: u32, env: &mut Env<'_>) -> Result<u64, BindRefusal> {
        let found = self.domains.iter_mut().find(|d| d.member(group).is_some());
        let Some(domain) = found else { return Err(BindRefusal::NotAttached { group }) };
        let doorbell = domain.member(group).map_or(0, |m| m.doorbell);
        let Some(table) = domain.doorbells_mut() else { return Ok(doorbell) };
        match table.bind(doorbell) {
            Ok((iova, first_use)) => {
                if first_use {
                    env.observer.event(&Event::DoorbellBound { group, doorbell, iova });
                }
                Ok(iova)
            }
            Err(_) => Err(BindRefusal::WindowFull { window: table.window(), pages: table.pages() }),
        }
    }
}
