"""Training of the embedded model `pocket`: synthesis, training, evaluation. Every stage is one command."""
