"""What a source file says: language, syntax tree and cuts, score, fingerprints, secrets. No database, no model."""
