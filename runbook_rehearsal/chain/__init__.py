"""The chain: its clusters, their TOML, and what it does as a function of seed, events and time."""
