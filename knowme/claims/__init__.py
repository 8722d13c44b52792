"""Claims: what a message says about its writer and those they name, read by rules.

A message (``message``) is cut into sentences, each read in its language: English by clauses and
verbs (``english``, ``clauses``, ``predicates``, ``directives``), others by patterns
(``languages``). The words that they know are data (``lexicon``).
"""

from knowme.claims.message import READS, read

__all__ = ["READS", "read"]
