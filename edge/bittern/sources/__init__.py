"""Where frames come from; a module for each kind of source, and the registry that knows them all."""
