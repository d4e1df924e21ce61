//! Requests: `ioctl` and `mmap` on containers, groups and devices, and what happens as these close.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{Answer, Ctx, DeviceId, Refusal};

use super::Door;
use super::caller::Client;
use super::devices::InHand;
use super::files::{Identity, Kind, Object};
use super::process::{Copied, Process};
use crate::sys::notify::{Notification, Response};
use crate::watch::{Call, Request, Target};

impl From<Object> for Target {
    fn from(object: Object) -> Self {
        match object {
            Object::Container(id) => Self::Container(id),
            Object::Group(id) => Self::Group(id),
            Object::Device(id) => Self::Device(id),
        }
    }
}

/// Why there is no copy of a client's descriptor.
pub(super) enum Missing {
    /// There is no such descriptor, or none that may be seen.
    None,
    /// We have no room for one: the error.
    Room(i32),
}

/// What a descriptor came to.
pub(super) enum Found {
    /// None of ours: the kernel's.
    Foreign,
    Object(Object),
    /// It cannot be looked at: an error for the client.
    NoRoom(i32),
    /// The open itself would have failed.
    Refused(Object, Refusal),
}

impl Door {
    /// What a descriptor of a process stands for; an open file that is met for the first time is opened
    /// now.
    pub(super) fn find(&self, process: &Process, tid: i32, fd: i32) -> Found {
        let file = match self.descriptor(process, tid, fd) {
            Ok(file) => file,
            Err(Missing::None) => return Found::Foreign,
            Err(Missing::Room(errno)) => return Found::NoRoom(errno),
        };
        match self.files.identify(file.as_fd()) {
            Identity::Foreign => Found::Foreign,
            Identity::Known(object) => Found::Object(object),
            Identity::New(_) => self.open(process, file),
        }
    }

    /// A copy of a descriptor of a client.
    pub(super) fn descriptor(
        &self,
        process: &Process,
        tid: i32,
        fd: i32,
    ) -> Result<Copied, Missing> {
        process.descriptor(tid, fd).map_err(|error| match error.raw_os_error() {
            Some(errno @ (libc::EMFILE | libc::ENFILE)) => {
                self.watch.trouble(
                    "softvfio has no descriptor left for a request, which was refused: it needs one for \
                     each eventfd that a device has (raise `ulimit -n`)",
                );
                Missing::Room(errno)
            }
            Some(libc::EPERM) => {
                self.blind();
                Missing::None
            }
            _ => Missing::None,
        })
    }

    /// A client's descriptors cannot be looked at: what it asks goes to the kernel, which knows nothing
    /// of it. Told once.
    fn blind(&self) {
        if !self.blind.swap(true, Ordering::Relaxed) {
            self.watch.trouble(
                "the program's descriptors cannot be shared (pidfd_getfd is refused), so that its VFIO \
                 requests are not answered: `softvfio doctor` says what to enable",
            );
        }
    }

    /// The first request on an open file.
    fn open(&self, process: &Process, file: Copied) -> Found {
        let _one_at_a_time = self.opening.lock();
        let object = match self.files.identify(file.as_fd()) {
            Identity::Foreign => return Found::Foreign,
            Identity::Known(object) => return Found::Object(object),
            Identity::New(Kind::Container) => Object::Container(self.containers.open()),
            Identity::New(Kind::Group(id)) => {
                if let Err(refusal) = self.open_group(id) {
                    return Found::Refused(Object::Group(id), refusal);
                }
                Object::Group(id)
            }
            // A device's open files are tagged as they are given out; this one was opened by name.
            Identity::New(Kind::Device(_)) => return Found::Foreign,
        };
        if self.files.give(file.as_fd(), object).is_err() {
            return Found::Foreign;
        }
        // Whoever is told may start a session, or wait for one that starts.
        drop(file);
        self.tell(process, object, Call::Open, Ok(0), None, self.next_number());
        Found::Object(object)
    }

    /// Opens a group. One that is open still may have been closed by a process that was killed: a
    /// thread of ours that was at work for it has copies of its descriptors for a moment.
    fn open_group(&self, id: vfio::GroupId) -> Result<(), Refusal> {
        const LOOKS: usize = 20;
        const PAUSE: Duration = Duration::from_millis(2);
        let mut opened = self.system.lock().open_group(id);
        for _ in 0..LOOKS {
            if opened.is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
            self.close_closed(true);
            opened = self.system.lock().open_group(id);
        }
        opened
    }

    /// `ioctl`.
    pub(super) fn ioctl(
        &self,
        process: &Process,
        notification: &Notification,
        fd: i32,
        request: u32,
        arg: u64,
    ) -> Response {
        self.close_closed(false);
        let object = match self.find(process, notification.tid, fd) {
            Found::Foreign => return Response::Continue,
            Found::NoRoom(errno) => return Response::Error(errno),
            Found::Refused(object, refusal) => {
                let errno = refusal.errno(&self.dialect).number();
                let number = self.next_number();
                self.tell(process, object, Call::Open, Err(errno), Some(refusal), number);
                return Response::Error(errno);
            }
            Found::Object(object) => object,
        };
        let mut client = Client::of(self, process, notification.id, notification.tid);
        if arg != 0 {
            client.look_ahead(arg);
        }
        let mut devices = InHand::none(self);
        let answer = loop {
            // The device first, so that nobody waits for it while holding the system.
            if let Object::Device(id) = object
                && devices.get(id).is_none()
                && let Err(id) = devices.wait_for(id)
            {
                return self.stuck(id);
            }
            let answer = self.issue(&mut client, &mut devices, object, request, arg);
            let busy = match devices.wait_for_busy() {
                Ok(busy) => busy,
                Err(id) => return self.stuck(id),
            };
            if client.lacks() {
                // The client may need the device to bring its memory.
                devices.put_down();
                client.fetch();
            } else if !busy && !self.lets_go_of_closed(&mut devices, object, &answer) {
                break answer;
            }
        };
        self.let_go(devices);
        self.containers.drop_dead();
        let written = client.finish();
        let answer = match written {
            Err(bad) if answer.is_ok() => Err(bad.into()),
            _ => answer,
        };
        let number = client.number;
        let (read, written) = client.into_pieces();
        let (value, refusal) = self.told(answer);
        let call = Call::Ioctl { request, arg, read, written };
        self.tell(process, object, call, value, refusal, number);
        match value {
            Ok(value) => Response::Value(value),
            Err(errno) => Response::Error(errno),
        }
    }

    fn issue<'a>(
        &'a self,
        client: &mut Client<'a>,
        devices: &mut InHand<'a>,
        object: Object,
        request: u32,
        arg: u64,
    ) -> Answer {
        let mut system = self.system.lock();
        let number = self.next_number();
        client.number = number;
        let before = self.at_work.begin(&system, object, number);
        let mut containers = &self.containers;
        let mut ctx = Ctx { caller: client, containers: &mut containers, devices };
        let answer = match object {
            Object::Container(id) => system.container_ioctl(id, &mut ctx, request, arg),
            Object::Group(id) => system.group_ioctl(id, &mut ctx, request, arg),
            Object::Device(id) => system.device_ioctl(id, &mut ctx, request, arg),
        };
        before.tell(&system, number, &*self.watch);
        answer
    }

    /// After a request that was refused because INTx has an unmask eventfd: whether that is closed,
    /// and gone now.
    fn lets_go_of_closed(&self, devices: &mut InHand<'_>, object: Object, answer: &Answer) -> bool {
        let (Object::Device(id), Err(Refusal::Device(DeviceRefusal::Irq(IrqRefusal::UnmaskTaken)))) =
            (object, answer)
        else {
            return false;
        };
        let Some(guarded) = devices.get(id) else { return false };
        let Some(event) = guarded.device.unmask_event() else { return false };
        if self.events.is_open_elsewhere(event) {
            return false;
        }
        guarded.device.event_closed(&mut Client::nobody(self), event);
        true
    }

    /// After a request: its devices may have something to do, and watch other eventfds.
    pub(super) fn let_go(&self, mut devices: InHand<'_>) {
        let ids = devices.ids();
        for id in &ids {
            if let Some(guarded) = devices.get(*id) {
                self.update_watched(*id, guarded);
            }
        }
        drop(devices);
        for slot in ids.iter().filter_map(|id| self.slot(*id)) {
            slot.kick();
        }
    }

    /// A device that does not come back from an access to a client's memory.
    pub(super) fn stuck(&self, id: DeviceId) -> Response {
        let name = self.slot(id).map_or("a device", |slot| &slot.name);
        self.watch.trouble(&format!(
            "{name} waits for the client's memory (a fault that nobody serves?); a request was refused \
             with EIO"
        ));
        Response::Error(libc::EIO)
    }

    /// `mmap` of a device's descriptor: the kernel maps it when it may be.
    pub(super) fn map(
        &self,
        process: &Process,
        tid: i32,
        fd: i32,
        offset: u64,
        len: u64,
        shared: bool,
    ) -> Option<Response> {
        let (object, id) = match self.find(process, tid, fd) {
            Found::Object(object @ Object::Device(id)) => (object, id),
            Found::NoRoom(errno) => return Some(Response::Error(errno)),
            _ => return Some(Response::Continue),
        };
        let Some(slot) = self.slot(id) else { return Some(Response::Continue) };
        let Some(guarded) = slot.lock_within(super::caller::PATIENCE) else {
            return Some(self.stuck(id));
        };
        let mapped = guarded.device.mmap(offset, len, shared);
        let number = self.next_number();
        drop(guarded);
        let (value, refusal) = self.told(mapped.map(|_| 0).map_err(Refusal::from));
        self.tell(process, object, Call::Map { offset, len, shared }, value, refusal, number);
        Some(value.map_or_else(Response::Error, |_| Response::Continue))
    }

    /// What a client is told, and why not.
    pub(super) fn told(&self, answer: Answer) -> (Result<i64, i32>, Option<Refusal>) {
        match answer {
            Ok(value) => (Ok(value), None),
            Err(refusal) => (Err(refusal.errno(&self.dialect).number()), Some(refusal)),
        }
    }

    /// Tells those who watch of a request.
    pub(super) fn tell(
        &self,
        process: &Process,
        object: Object,
        call: Call,
        answer: Result<i64, i32>,
        refusal: Option<Refusal>,
        number: u64,
    ) {
        let (pid, target) = (process.tgid(), object.into());
        self.watch.request(&Request { number, pid, target, call, answer, refusal });
    }

    /// Closes what has no descriptor any more; with `look`, also where nothing was told of.
    pub(super) fn close_closed(&self, look: bool) {
        self.close_closed_within(Duration::from_millis(50), look);
    }

    /// The same, waiting at most so long for a thread that is about to close something: that may take a
    /// client's help. In steps, of which a time in which no thread of ours has a processor is one.
    pub(super) fn close_closed_within(&self, patience: Duration, look: bool) {
        const STEP: Duration = Duration::from_millis(2);
        let steps = patience.as_millis() / STEP.as_millis();
        let _in_turn = (0..steps).find_map(|_| self.closing.try_lock_for(STEP));
        if self.files.something_closed() {
            // It looks again, whoever heard of it first.
            self.watcher.wake();
        }
        if look || self.files.may_be_closed() {
            for object in self.files.take_closed() {
                self.close(object);
            }
        }
    }

    pub(super) fn close(&self, object: Object) {
        let mut client = Client::nobody(self);
        let mut devices = InHand::none(self);
        let number = loop {
            let mut containers = &self.containers;
            let mut ctx =
                Ctx { caller: &mut client, containers: &mut containers, devices: &mut devices };
            let mut system = self.system.lock();
            let number = self.next_number();
            let before = self.at_work.begin(&system, object, number);
            match object {
                Object::Container(id) => self.containers.close(id),
                Object::Group(id) => system.close_group(id, &mut ctx),
                Object::Device(id) => system.close_device(id, &mut ctx),
            }
            before.tell(&system, number, &*self.watch);
            drop(system);
            match devices.wait_for_busy() {
                Ok(false) => break number,
                Ok(true) => {}
                Err(id) => {
                    self.stuck(id);
                    break number;
                }
            }
        };
        self.let_go(devices);
        self.containers.drop_dead();
        // What a device still moves to memory that went with it, it moves nowhere.
        let _ = client.finish();
        let (pid, target) = (0, object.into());
        let call = Call::Close;
        self.watch.request(&Request { number, pid, target, call, answer: Ok(0), refusal: None });
        if let Object::Device(id) = object {
            self.device_closed(id);
        }
    }
}
