"""Spatial transcriptomics slides to sharded multi-channel image patches for pretraining."""

__version__ = "0.1.0"
