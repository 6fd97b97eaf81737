"""Foreign binary formats, read in a child process with limits of time and memory, or by a reader that allocates nothing
by what a file claims."""
