"""Compiled calls: oneDNN packing, CUDA graphs, inductor."""
