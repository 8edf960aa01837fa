"""A dataset on disk and its reading."""
