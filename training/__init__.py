"""How the embedded model `pocket` is made: synthesis, training, evaluation. Every stage is one command."""
