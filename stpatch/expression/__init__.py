"""Expression: normalization, moments, and the rules that choose genes."""
