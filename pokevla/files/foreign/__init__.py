"""Files of foreign binary formats, read in a child process with limits of time and memory."""
