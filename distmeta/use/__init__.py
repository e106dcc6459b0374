"""A meta-trained learner at work: adapting to new tasks, and predicting."""
