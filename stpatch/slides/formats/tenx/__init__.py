"""What 10x software writes: matrices, positions, lattices and bins."""
