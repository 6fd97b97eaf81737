"""What a sample is: records, sources, shards, index, order, reader, transforms, statistics, batches."""
