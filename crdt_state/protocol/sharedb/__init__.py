"""The JSON protocol of ShareDB, 1.2, for collections of texts (`PROTOCOL.md`, section 4)."""
