//! Names of objects: what a front end's file descriptors stand for.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A container: one open of `/dev/vfio/vfio`.
    ContainerId
}
id! {
    /// A VFIO group, by its IOMMU group number (`/dev/vfio/N`).
    GroupId
}
id! {
    /// A device, by its place in the list given to [`System::new`](crate::System::new).
    DeviceId
}
id! {
    /// A reference to an eventfd that the front end holds for us until
    /// [`Platform::put_event`](crate::Platform::put_event).
    EventId
}
