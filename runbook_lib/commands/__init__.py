"""What the commands of ``cli`` do; each returns its exit code and prints a table or one document."""
