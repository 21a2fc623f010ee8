"""What people want around a replica: a blocking facade and a command line."""
