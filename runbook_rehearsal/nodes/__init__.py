"""The validators: what runs, what they answer, what they have on disk."""
