"""Paths inside and outside a container."""
