"""Which tokens of a clip a model of clips looks at: run-length tokenization and its rivals."""
