"""Processes of the daemon's own: started, watched, started again, and ended with their daemon."""
