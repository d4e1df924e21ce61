//! The controller, driven as a driver would, over a small memory.

mod rig;

mod admin;
mod hostile;
mod interrupts;
mod io;
mod mapped;
mod polled;
mod registers;
