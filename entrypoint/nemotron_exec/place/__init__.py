"""Step 2, place: find this process's job, its place in it, and the directory where its launchers meet."""
