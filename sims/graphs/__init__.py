"""Graphs of augmentations: generators, operators, spectra, contrastive training and linear probes."""
