"""Datasets, samples and batches: records, sources, order, reader, transforms, statistics, loader."""
