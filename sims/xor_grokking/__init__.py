"""Memorise first, understand later: a ReLU network on XOR clusters (Xu et al. 2024)."""
