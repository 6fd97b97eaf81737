"""What numbers of successes say: intervals, comparisons of two policies, numbers of trials, sequential tests."""
