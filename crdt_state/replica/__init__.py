"""A replica: the core that decides, and the shell that does."""
