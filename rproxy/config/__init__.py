"""The configuration file: its schema, the checks of its values, and where in the file a mistake stands."""
