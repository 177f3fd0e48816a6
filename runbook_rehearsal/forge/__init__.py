"""The forge: its API, the issues and checks it holds, and what its own documentation says of it."""
