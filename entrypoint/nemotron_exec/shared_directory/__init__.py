"""A directory that others write to and other machines see: files, a lease, the server's clock, its file system."""
