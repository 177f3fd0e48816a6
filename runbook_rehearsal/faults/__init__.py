"""What can be broken, what must notice, and how it breaks."""
