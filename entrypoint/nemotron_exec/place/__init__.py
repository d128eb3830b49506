"""Step 2, place: which process of which job this is, and where its launchers meet."""
