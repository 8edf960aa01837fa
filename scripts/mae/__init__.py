"""A masked autoencoder over patches, its training loop, and the linear probe of what it has learned."""
