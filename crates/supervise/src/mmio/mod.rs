//! Register accesses of clients, one by one: pages that trap.
