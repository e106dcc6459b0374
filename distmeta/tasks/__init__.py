"""From labelled texts to episodes: sources → split → corpus → one file a task kind."""
