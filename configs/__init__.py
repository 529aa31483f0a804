"""What a run is: the schema of a config, its loading, and the presets."""
