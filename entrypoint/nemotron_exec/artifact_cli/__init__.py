"""The second program, `nemotron-artifact`: one file a command."""
