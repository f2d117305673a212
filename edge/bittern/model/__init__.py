"""From a frame to results: preprocessing, the model folder and its verification, the runtime."""
