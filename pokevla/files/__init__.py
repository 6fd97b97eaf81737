"""Atomic writes, advisory locks, and write failures as named errors. All other packages write through this one."""
