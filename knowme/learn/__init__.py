"""Learning: data sets from the archive, an adapter, and the gate that it must pass."""
