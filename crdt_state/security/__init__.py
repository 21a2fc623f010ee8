"""Who may do what: rights as values, and tokens that prove them.  No sockets, no clocks."""
