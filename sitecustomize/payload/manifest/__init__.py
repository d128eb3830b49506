"""The manifest store: versions of artifacts as small JSON files beside data that stays where it is."""
