"""Bytes at rest: the contract of a store and the engines that keep it."""
