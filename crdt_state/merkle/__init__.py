"""Which documents of a scope two replicas hold otherwise, found in few bytes: a trie of hashes.

`trie` says what the hashes are, `store` where they lie, `messages` how they travel, `walk` what
each side says.  No document, no socket, no disk: digests are given, differing ids come out.
"""
