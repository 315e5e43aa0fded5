"""The vote: one page, one vote per ballot, counted in Redis."""
