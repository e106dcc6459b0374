"""The life of a run: directory, experiment, session, training, evaluation, checkpoints."""
