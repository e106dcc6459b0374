"""Serves a meta-trained learner over HTTP: a process that takes requests, and replicas on Ray Serve that compute."""
