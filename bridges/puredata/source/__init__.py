"""Generator of the Pure Data patches."""
