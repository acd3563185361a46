"""The manifest: its schema, the grammar of the short form, and YAML → ``Manifest`` with a position for every mistake."""
