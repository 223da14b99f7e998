"""How other programs find the daemon and learn what it understands: OSCQuery and zeroconf."""
