"""Connections, and what runs a replica over them."""
