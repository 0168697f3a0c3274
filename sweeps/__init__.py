"""Running a plan on Ray: store, leases, workers, scheduling, tracking."""
