"""What `crdt-state demo` shows: real processes, a real server, and a table at the end.

`trace` is what two people once typed, `schedule` who may hear of what when, `line` the network
between a replica and the server, `quarrel` three people in one place; `person` runs one replica in
a process of its own, `child` starts such processes and ends them, `stage` directs them all,
`verdict` compares what they hold, `display` shows it.
"""
