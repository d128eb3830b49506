"""A directory that other users and machines share: files, a lease, the server's clock, its file system."""
