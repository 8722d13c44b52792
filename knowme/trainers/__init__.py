"""Trainers: what makes an adapter from a data set, each in a process of its own."""
