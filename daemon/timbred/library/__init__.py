"""What was made, and how: stored takes and their recipes."""
