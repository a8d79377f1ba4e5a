"""Training of the prior, stage by stage: `nextface train-prior`, docs/prior_training.md."""
