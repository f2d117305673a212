"""From an idea to labelled pictures: import, collect, check, deduplicate, split, resize, preview and label.

Nothing here needs TensorFlow, except where a module says so. Pictures of the user are never moved, altered or deleted:
what is decided goes into an index beside them (`bittern.evaluation.index`), or into a copy.
"""
