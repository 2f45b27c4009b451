"""Read data from files and URIs into datasets."""
