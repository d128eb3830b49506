"""Steps 3 and 4, resolve and write: from the references of a command to the files that its job reads."""
