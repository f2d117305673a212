"""A camera in a process of its own: started, watched, killed and started again."""
