"""Helpers for tests, ours and those of users: real servers, a faulty network, the contract suite.

Import what is needed from its module; nothing is loaded by importing this package.
"""

__all__: list[str] = []
