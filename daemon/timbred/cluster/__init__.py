"""Engines on the nodes of a Ray cluster: the relay beside the daemon, and the actor on a node."""
