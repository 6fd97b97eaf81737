"""Writing whole or not at all, advisory locks, and failures to write as named errors. The only place for them."""
