"""Who takes part: what they say, and operators and a commander who act by themselves."""
