"""Contrastive learning as spectral clustering of the augmentation graph (HaoChen et al. 2021)."""
