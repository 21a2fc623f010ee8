"""Unmodified npm `sharedb` clients, stock Yjs clients and Python replicas in one text."""
