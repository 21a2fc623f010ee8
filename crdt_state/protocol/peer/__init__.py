"""Our own wire: one socket between two replicas, many documents (`PROTOCOL.md`, section 2)."""
