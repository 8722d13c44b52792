"""A person who does not exist: three months of her life, shipped for the demo and the tests.

Promises: everything here is invented; ``build`` makes her OpenClaw home, ``questions`` and
``facts`` say what a memory of it should know.
Refuses to know: the rest of knowme. Nothing imports this but the demo, the tests and the evals.
"""
