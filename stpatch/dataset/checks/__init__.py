"""What `stpatch.dataset.validate` looks at: files, tables, slides, and what readers make of it all."""
