"""Panel rules, one module per rule, named for it: they choose one list of genes for the corpus or for a slide."""
