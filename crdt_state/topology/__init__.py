"""Who talks to whom and who forwards: pure functions of members, rounds and dice.

`contract` says what a topology answers; a module each for star, mesh, gossip, multi-primary and
chain; `members` is who is known.  Primary-secondary with fail-over will be `primary.py` beside
`chain`: who leads is then an order and an epoch, as there, and electing is `cluster`'s.
"""
