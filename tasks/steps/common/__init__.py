"""Stages and helpers that several questions share."""
