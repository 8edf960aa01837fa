"""Runs the graph of units: workers, ranks, status, checks and estimates."""
