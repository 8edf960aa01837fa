"""Shards: how samples lie on disk."""
