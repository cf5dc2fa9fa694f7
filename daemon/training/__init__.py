"""What needs the model. Runs as a child, `python -m daemon.training VERB JOB_DIR`; nothing else imports torch."""
