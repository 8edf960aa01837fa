"""Shard formats: how samples lie in files. One module each, found by name; see `base.ShardFormat`."""
