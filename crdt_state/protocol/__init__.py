"""Messages as values, and strict codecs for them.  No sockets, no clocks, no tasks."""
