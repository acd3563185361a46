"""Where a model comes from: a folder, an installed package, the Hugging Face hub or ModelScope; and its download."""
