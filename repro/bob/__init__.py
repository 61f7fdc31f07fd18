"""BOB in miniature: its ablation, and what its paper says about context, training length and long tails."""
