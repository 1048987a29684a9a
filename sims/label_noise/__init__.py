"""Noise shape decides the solution: quadratically parametrised sparse regression (HaoChen et al. 2021)."""
