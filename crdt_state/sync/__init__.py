"""Exchanges between replicas, as values and machines: no sockets, no clocks, no tasks."""
