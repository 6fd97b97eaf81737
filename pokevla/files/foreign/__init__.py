"""Foreign formats: binary files, read in a child process with limits of time and memory or by a reader that allocates
nothing by what a file claims; models of transformers."""
