"""Shard formats: how samples lie in files."""
