"""The report of a mixture: what its questions, answers and pictures are like."""
