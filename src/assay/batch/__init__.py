"""Batch audits: find models, audit each with the engine of the bench, and make one page of all."""
