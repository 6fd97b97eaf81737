"""LIBERO-Plus: 10,030 perturbed LIBERO tasks, from the files of a checkout that the user names."""
