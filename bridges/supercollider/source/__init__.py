"""Generator of the SuperCollider Quark's generated classes and help."""
