"""Patch rules, one module per rule, named for it: they choose the genes of one window."""
