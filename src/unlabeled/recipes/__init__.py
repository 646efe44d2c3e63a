"""Published mixtures of sources, each a file of data that ends in `MIX = Mix(...)`, with where its numbers are from."""
