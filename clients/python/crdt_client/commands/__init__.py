"""The command line `crdt-state`: a module for each command, and what they share.

`outcome` has the exit codes, `terminal` what is written where, `stores` how a store is found and
opened, `application` puts the commands together.
"""

from crdt_client.commands.application import main

__all__ = ["main"]
