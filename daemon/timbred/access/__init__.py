"""Access from other machines: CURVE keys, the token, allowed addresses, and the sources that were refused."""
