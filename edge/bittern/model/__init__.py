"""From a frame to an answer: preprocessing, the model folder and its proof, the runtime."""
