"""The server: settings, identity, endpoints and the shell around a listening replica."""
