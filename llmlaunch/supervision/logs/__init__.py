"""What components printed: files of a bounded size, and readers of them."""
