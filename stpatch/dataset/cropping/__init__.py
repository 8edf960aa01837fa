"""Datasets of whole slides (``shards.format: slides``): patches are cut while they are read."""
