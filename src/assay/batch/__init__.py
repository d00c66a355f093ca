"""Many models at once: what there is, an audit of each on the bench's engine, one page for all."""
