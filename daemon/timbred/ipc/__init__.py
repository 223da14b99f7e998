"""Child processes: supervision, and the messages that the daemon exchanges with them."""
