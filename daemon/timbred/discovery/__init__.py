"""Discovery of the daemon and its addresses by other programs: OSCQuery and mDNS."""
