//! Where a client runs: its namespaces, its `/dev` and `/sys`, its system call filter.
